"""Two pieces of work on one store, in an order that a test names: a work stands still before each use of the store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from zerovl.registry.stores.base import Store

_USES = ("create", "delete", "exists", "read", "blocks", "download", "keys", "folders")
END = 10_000  # more steps than any work has


class InOrder:
    """In place of a pool of threads: a work whose steps are told reads one key after the other, in the same order."""

    def __init__(self, workers: int) -> None: ...

    def __enter__(self) -> InOrder:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, read: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(read, items)


class Work:
    """Work in a thread of its own; it uses the store through this, and stands still before each use until told."""

    def __init__(self, store: Store, act: Callable[[Store], Any]) -> None:
        self._go, self._stopped, self._one = threading.Semaphore(0), threading.Semaphore(0), threading.Lock()
        self._store, self._done, self._left = store, False, 0
        self.result: Any = None  # what it returned or raised
        threading.Thread(target=self._run, args=(act,), daemon=True).start()
        self._stopped.acquire()

    def go(self, steps: int) -> int:
        """Go on for so many steps, or to the end; returns how many there were."""
        self._left = steps
        if steps and not self._done:
            self._go.release()
            self._stopped.acquire()
        return steps - self._left

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in _USES:
            return found

        def stepping(*arguments: Any) -> Any:
            with self._one:
                self._stand()
                return found(*arguments)

        return stepping

    def _stand(self) -> None:
        if not self._left:  # a change of threads costs more than a step
            self._stopped.release()
            self._go.acquire()
        self._left -= 1

    def _run(self, act: Callable[[Store], Any]) -> None:
        self._stand()
        try:
            self.result = act(self)  # type: ignore[arg-type]
        except Exception as error:
            self.result = error
        self._done = True
        self._stopped.release()


def orders(first: int, second: int) -> Iterator[tuple[int, int]]:
    """Each way to stop one work of `first` steps once and the other of `second` once."""
    yield from ((a, b) for a in range(first + 1) for b in range(second + 1))


def interleave(store: Store, acts: Sequence[Callable[[Store], Any]], order: tuple[int, int]) -> list[Any]:
    """Let the first act go for its steps, the second for its, then both to their ends; returns what they came to."""
    works = [Work(store, act) for act in acts]
    for work, steps in zip(works, order, strict=True):
        work.go(steps)
    for work in works:
        work.go(END)
    return [work.result for work in works]


def count_steps(store: Store, act: Callable[[Store], Any]) -> int:
    """Return how many steps a work takes where nobody is beside it."""
    return Work(store, act).go(END)
