"""Units packed and tars indexed by the workers of a dask cluster: `ZEROVL_DASK=tcp://scheduler:8786 zerovl prepare`.

This process reads the sources, hands units out and puts their shards in place, in the order of the units; so the
outputs are those of a run on one machine, byte for byte. Workers run the same program and see the same folders under
the same paths, which is checked when packing begins, and by each task for a worker that comes later. A shard is
written into a folder of its attempt alone and moved by this process: a worker that was given up, and is not dead,
overwrites nothing; it is so with the index of a tar. What a worker had in hand when it died is done by another one.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import PIL

from zerovl import code_closure
from zerovl.data.raw.in_place import Work
from zerovl.data.raw.kept_units import KeptUnits
from zerovl.data.raw.layout import is_remote
from zerovl.data.raw.pack import Packed, Unit
from zerovl.data.raw.tar_index import IndexAll, TarTask, index_aside, take_index
from zerovl.errors import ZeroVLError
from zerovl.files import sha256_json
from zerovl.log import logger
from zerovl.text_format import plural

if TYPE_CHECKING:
    from distributed import Client, Future

Given = TypeVar("Given")

_VARIABLE = "ZEROVL_DASK"
_SCRATCH = ".cluster"  # folder of attempts, beside the shards
_MARK = "here"  # a file in it that a worker must see
_FIRST = 60  # seconds that a first worker has to come
_ASK = 60  # seconds between looks at whether any worker is left, while one waits for a unit


class NotSharedError(Exception):
    """A worker that came later does not see the folder of the shards, or does not run the same program."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a worker has: the digest of its code, Pillow's version, and the paths that it does not see."""

    code: str
    pillow: str
    missing: tuple[str, ...]


def cluster_address() -> str:
    """Return the address of the scheduler that `ZEROVL_DASK` names; empty where there is none."""
    return os.environ.get(_VARIABLE, "")


@contextmanager
def packing_on_cluster(
    address: str, kept: KeptUnits, shards: Path, sources: Sequence[Path], here: IndexAll
) -> Iterator[Work]:
    """Yield what packs units and indexes tars on the workers of a cluster; tars on S3 are indexed by `here`.

    Raises `ZeroVLError` where distributed is missing, no scheduler or worker answers, workers do not see `shards` and
    `sources` or run other code, a unit ends four workers, or all are gone.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed.client import CancelledError
        from distributed.comm import CommClosedError
    except ImportError:
        raise ZeroVLError(
            f"{_VARIABLE} is {address!r}, and the package distributed is missing; pip install 'zerovl[dask]', or unset "
            f"{_VARIABLE}"
        ) from None
    scratch = shards.absolute() / _SCRATCH
    mark = scratch / f"{_MARK}-{uuid.uuid4().hex}"
    scratch.mkdir(parents=True, exist_ok=True)
    mark.touch()
    there = replace(kept, folder=os.path.abspath(kept.folder), passing=os.path.abspath(kept.passing))
    try:
        with _connected(Client, address) as client:
            _wait_for_a_worker(client, address)
            paths = [str(mark), *(str(path.absolute()) for path in sources)]
            check_workers(_answers(client, paths, address), kept.code, address)
            logger().info(f"packing on {address}: {plural(len(client.nthreads()), 'worker')}")
            yield Work(
                lambda units: _in_order(units, there, mark, client),
                lambda tasks: _indexed(tasks, kept.code, mark, client, here),
            )
    except KilledWorker as error:
        raise ZeroVLError(
            f"{address}: {error.allowed_failures + 1} workers died over one shard or tar, most likely for lack of "
            "memory; give workers more memory or fewer threads, or reduce prepare.shard_samples, then run this again: "
            "it goes on"
        ) from None
    except NotSharedError as error:
        raise ZeroVLError(str(error)) from None
    except (CancelledError, CommClosedError):
        raise ZeroVLError(
            f"{address}: the scheduler went away; start it again, then run this again: it goes on where it was"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _connected(client: type[Client], address: str) -> Iterator[Client]:
    try:
        connected = client(address, timeout="30s", set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ZeroVLError(
            f"{_VARIABLE} is {address!r}, where no dask scheduler answers ({str(error).splitlines()[0]}); start one by "
            f"`dask scheduler`, name it as tcp://HOST:8786, or unset {_VARIABLE}"
        ) from None
    with connected:
        yield connected


def _wait_for_a_worker(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_FIRST)
    except TimeoutError:
        raise ZeroVLError(
            f"{address}: no worker came within {_FIRST} s; start some by `dask worker {address} --nthreads 1`"
        ) from None


def _answers(client: Client, paths: Sequence[str], address: str) -> dict[str, Any]:
    try:
        return dict(client.run(look, paths, on_error="return"))
    except ImportError as error:
        raise ZeroVLError(
            f"{address}: a worker cannot import zerovl ({error}); install this version of zerovl where workers run"
        ) from None


def look(paths: Sequence[str]) -> Seen:
    """Tell what this process has; runs on each worker."""
    missing = tuple(path for path in paths if not os.path.exists(path))
    return Seen(sha256_json(code_closure.digests("prepare")), PIL.__version__, missing)


def check_workers(answers: dict[str, Any], code: str, address: str) -> None:
    """Raise `ZeroVLError` unless all workers, by their address, run this program and see its folders."""
    for worker, seen in sorted(answers.items()):
        if not isinstance(seen, Seen):
            raise ZeroVLError(
                f"{address}: worker {worker} cannot run zerovl ({type(seen).__name__}: {seen}); install this version "
                "of zerovl there"
            )
        if seen.missing:
            raise ZeroVLError(
                f"{address}: worker {worker} does not see {seen.missing[0]}; mount the folder there under the same "
                "path (workers read the sources and write the shards)"
            )
        if differs := _other_program(seen, code, PIL.__version__):
            raise ZeroVLError(f"{address}: worker {worker} {differs}; install the same ones there")


def _other_program(seen: Seen, code: str, pillow: str) -> str:
    """Return how a worker's program differs from that of `prepare`; empty where it does not."""
    if (seen.code, seen.pillow) == (code, pillow):
        return ""
    return (
        f"runs another zerovl or Pillow (code {seen.code[:12]}, Pillow {seen.pillow}; prepare has {code[:12]}, "
        f"{pillow}) and might write other bytes"
    )


def pack_there(kept: KeptUnits, unit: Unit, mark: str, pillow: str) -> tuple[Packed, str]:
    """Pack a unit into a folder of this attempt beside the mark; returns what came of it, and the folder.

    Raises `NotSharedError` where this process does not see the mark, or has other code than `kept` or another Pillow.
    """
    _check_this_worker(mark, kept.code, pillow)
    attempt = f"{os.path.dirname(mark)}/{uuid.uuid4().hex}"
    packed = kept.pack(unit, attempt)
    return replace(packed, unit=replace(unit, records=())), attempt


def index_there(task: TarTask, scratch: str, mark: str, code: str, pillow: str) -> str:
    """Write the index of a tar into a folder of this attempt in `scratch`; returns the folder.

    Raises `NotSharedError` as `pack_there` does, and `ZeroVLError` as `index_tar` does.
    """
    _check_this_worker(mark, code, pillow)
    attempt = f"{scratch}/{uuid.uuid4().hex}"
    index_aside(task, attempt)
    return attempt


def _check_this_worker(mark: str, code: str, pillow: str) -> None:
    seen, go_on = look([mark]), "or stop the worker, then run this again: it goes on"
    if seen.missing:
        raise NotSharedError(
            f"{os.uname().nodename}: this worker does not see {mark}; mount the folder there under the same path, "
            f"{go_on}"
        )
    if differs := _other_program(seen, code, pillow):
        raise NotSharedError(f"{os.uname().nodename}: this worker {differs}; install the same ones there, {go_on}")


def _in_order(units: Iterator[Unit], kept: KeptUnits, mark: Path, client: Client) -> Iterator[Packed]:
    """Give results in the order of the units."""
    run = uuid.uuid4().hex

    def pack(unit: Unit) -> Future[Any]:
        given, key = (kept, _absolute(unit), str(mark), PIL.__version__), f"zerovl-{run}-{unit.name}"
        return client.submit(pack_there, *given, key=key, pure=False)

    for unit, task in _ahead(units, pack, client):
        yield _in_place(unit, task, client)


def _indexed(tasks: list[TarTask], code: str, mark: Path, client: Client, here: IndexAll) -> Iterator[object]:
    """Index the tars that lie on disks on the workers; who may read those on S3 is this process alone."""
    run = uuid.uuid4().hex
    local = [_absolute_tar(task) for task in tasks if not is_remote(task.path)]

    def index(task: TarTask) -> Future[Any]:
        given = task, f"{task.folder}/.{run}", str(mark), code, PIL.__version__
        return client.submit(index_there, *given, key=f"zerovl-{run}-{task.entry.name}", pure=False)

    try:
        for task, future in _ahead(iter(local), index, client):
            take_index(task, _waited(future, client))
            yield task
    finally:
        for folder in {task.folder for task in local}:
            shutil.rmtree(Path(folder, f".{run}"), ignore_errors=True)
    yield from here([task for task in tasks if is_remote(task.path)])


def _ahead(
    given: Iterator[Given], submit: Callable[[Given], Future[Any]], client: Client
) -> Iterator[tuple[Given, Future[Any]]]:
    """Give what was submitted in its order; two for each thread of the workers are submitted ahead."""
    pending: deque[tuple[Given, Future[Any]]] = deque()
    for each in given:
        pending.append((each, submit(each)))
        if len(pending) >= 2 * max(1, sum(client.nthreads().values())):
            yield pending.popleft()
    while pending:
        yield pending.popleft()


def _absolute_tar(task: TarTask) -> TarTask:
    path, folder, scratch = map(os.path.abspath, (task.path, task.folder, task.scratch))
    return replace(task, path=path, folder=folder, scratch=scratch)


def _absolute(unit: Unit) -> Unit:
    """Return the unit with absolute paths: workers run in folders of their own."""
    records = tuple(
        replace(record, picture=replace(record.picture, path=os.path.abspath(record.picture.path)))
        if record.picture
        else record
        for record in unit.records
    )
    return replace(unit, shards=os.path.abspath(unit.shards), records=records)


def _in_place(unit: Unit, task: Future[Any], client: Client) -> Packed:
    """Wait for a unit and move its shard to where it belongs."""
    packed: Packed
    packed, attempt = _waited(task, client)
    if packed.bytes:
        path = Path(unit.shards, unit.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(Path(attempt, unit.name), path)
    shutil.rmtree(attempt, ignore_errors=True)
    return replace(packed, unit=unit)


def _waited(task: Future[Any], client: Client) -> Any:
    deserted = False
    while True:
        try:
            return task.result(timeout=_ASK)
        except TimeoutError:
            if task.done():  # just now, or the error is the task's own
                return task.result()
            if deserted and not client.nthreads():
                raise ZeroVLError(
                    f"no worker has been left for {_ASK} s; start some, then run this again: it goes on where it was"
                ) from None
            deserted = not client.nthreads()
