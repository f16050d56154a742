"""Items of a map-style data set made ahead by worker processes, in order, with a clean end."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawValue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, Dataset, get_worker_info

from zerovl.data.batches.prefetch_bound import NO_BOUND, Bound
from zerovl.descriptors import raise_open_files_limit
from zerovl.errors import ZeroVLError
from zerovl.memory import is_out_of_memory
from zerovl.processes import die_with_parent

_SECONDS_TO_END = 5.0  # for a worker after SIGTERM
_SECONDS_TO_RECEIVE = 2.0  # of a closing loader, for the items that its workers have in hand
_SECONDS_TO_LOOK_AGAIN = 0.01  # whether there is room for another item

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Failure:
    """A `ZeroVLError` on its way to the caller; torch would lay a worker's traceback over its message."""

    message: str


class _Guarded(Dataset[Any]):
    """A data set whose errors are items, and which makes nothing more when the loader closes."""

    def __init__(self, dataset: Dataset[Any], lower: str, bound: Bound) -> None:
        self.dataset = dataset
        self._lower = lower
        self._bound = bound
        # Without a lock, which a worker that is killed could hold for ever.
        self.closing = RawValue(ctypes.c_bool, False)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        while not self.closing.value and not self._bound.may_make(index):
            time.sleep(_SECONDS_TO_LOOK_AGAIN)
        if self.closing.value:
            return None
        try:
            item = self.dataset[index]
            worker = get_worker_info()
            self._bound.made(worker.id if worker else 0, item)
            return item
        except ZeroVLError as error:
            return _Failure(str(error))
        except RuntimeError as error:  # in the middle of a step it would be taken for the step's own
            if not is_out_of_memory(error):
                raise
            return _Failure(_no_memory(error, self._lower))


class OrderedLoader(Iterator[Item], Generic[Item]):
    """Gives items 0, 1, 2, ... of a data set; the order does not depend on the number of workers.

    `prefetch` items are kept ready, over all workers, and at least one a worker, as far as `bound` allows. Items are
    made in this process where `workers` is 0. `pinned` ones are page-locked by their `pin_memory` in a thread
    of this process. Raises the data set's `ZeroVLError` as it is, and one that names the settings `lower`
    where memory runs out: those that take less of it when they are lower.
    """

    def __init__(
        self,
        dataset: Dataset[Item],
        workers: int,
        prefetch: int,
        pinned: bool = False,
        *,
        lower: str,
        bound: Bound = NO_BOUND,
    ) -> None:
        raise_open_files_limit()  # of the workers too: for shards that stay open
        guarded = _Guarded(dataset, lower, bound)
        self._bound = bound
        self._next = 0
        self._lower = lower
        self._closing = guarded.closing
        loader: DataLoader[Item] = DataLoader(
            guarded,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=max(2, -(-prefetch // workers)) if workers else None,
            worker_init_fn=_start_worker,
            pin_memory=pinned,
            # Its own, so that making a loader draws nothing from torch's global generator.
            generator=torch.Generator(),
        )
        self._workers = workers
        self._iterator: Any = iter(loader)

    def __next__(self) -> Item:
        if self._iterator is None:
            raise StopIteration
        self._bound.wants(self._next)
        try:
            item = next(self._iterator)
        except StopIteration:
            self.close()
            raise
        except (RuntimeError, OSError, EOFError) as error:
            self.close()
            if self._workers and _tells_of_death(error):
                raise ZeroVLError(
                    f"a loader process died ({str(error) or type(error).__name__}); if memory ran out, set "
                    f"{self._lower} lower, or give the container more shared memory (--shm-size)"
                ) from error
            if is_out_of_memory(error):  # page-locked memory, in the thread that copies there
                raise ZeroVLError(_no_memory(error, self._lower)) from error
            raise
        if isinstance(item, _Failure):
            self.close()
            raise ZeroVLError(item.message)
        self._next += 1
        self._bound.took(item)
        return item  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the workers, wait for them, and free what they have sent; later calls do nothing."""
        iterator, self._iterator = self._iterator, None
        # What torch calls when the iterator is collected; here at a known time instead.
        shutdown = getattr(iterator, "_shutdown_workers", None)
        if shutdown is None:
            return
        self._closing.value = True
        _receive_rest(iterator)
        try:
            shutdown()
        except RuntimeError as error:
            # A worker's death is raised by torch's SIGCHLD handler wherever this process then is, also
            # here. The shutdown has sent SIGTERM to the others by then, without waiting for them.
            if not _tells_of_death(error):
                raise
            for worker in iterator._workers:
                worker.join(_SECONDS_TO_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _receive_rest(iterator: Any) -> None:
    """Take all that torch's iterator was not asked for yet; a worker that is gone ends it.

    What a worker has sent and nobody receives stays in shared memory until this process ends.
    """
    deadline = time.monotonic() + _SECONDS_TO_RECEIVE
    # A worker's death is raised in any line of it, by torch's SIGCHLD handler.
    with suppress(RuntimeError, OSError, EOFError):
        while iterator._tasks_outstanding > 0 and time.monotonic() < deadline:
            if not all(worker.is_alive() for worker in iterator._workers):
                return
            arrived, _ = iterator._try_get_data(timeout=0.1)
            iterator._tasks_outstanding -= arrived
        iterator._task_info.clear()  # what came before its turn


def _no_memory(error: Exception, lower: str) -> str:
    lines = str(error).splitlines()  # one of another thread begins with where it was raised
    said = next((line for line in lines if is_out_of_memory(RuntimeError(line))), "".join(lines[:1]))
    return f"out of memory while a batch was made ({said}); set {lower} lower"


def _tells_of_death(error: Exception) -> bool:
    """Whether torch says that a worker is gone, or an item of one could not be received."""
    if str(error).startswith("Caught "):
        return False  # by the worker, which lives: the data set raised it
    return isinstance(error, (OSError, EOFError)) or "DataLoader worker" in str(error)


def _start_worker(_worker_id: int) -> None:
    """Run first in each worker."""
    torch.set_num_threads(1)  # the ranks and the other workers have the remaining cores
    # Tensors travel as files in shared memory by name. By descriptor, torch's default, each tensor that is on its way
    # or in use holds one: a step of 240 micro-batches broke at the usual limit of 1024.
    torch.multiprocessing.set_sharing_strategy("file_system")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C and SIGTERM to the whole group are for the trainer, which then ends its workers: they
    # must outlive them while it saves a checkpoint.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Sent when the thread that made the loader ends, which is the main one. Elsewhere torch's own
    # watchdog ends a worker some seconds after its parent.
    die_with_parent()
    _start_remover()  # it inherits that SIGINT is ignored


def _start_remover() -> None:
    """Start `torch_shm_manager`, which removes what processes leave in shared memory, with a stderr of its own.

    It ends two seconds after the last process that used it, which may be the parent: whoever reads the stderr of the
    command to its end would wait for it. Workers of a later loader use the one that the parent already knows.
    """
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        torch.zeros(1).share_memory_()  # starts it, where there is none
    finally:
        os.dup2(kept, 2)
        os.close(kept)
