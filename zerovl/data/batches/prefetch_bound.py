"""How far the workers of a loader run ahead of whoever takes their items, in bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import Any, Protocol


class Bound(Protocol):
    """Says whether an item may be made already; shared by the workers of a loader and the process that has it."""

    def may_make(self, index: int) -> bool:
        """Whether a worker may make item `index` now."""
        ...

    def made(self, worker: int, item: Any) -> None:
        """Count what a worker has made."""
        ...

    def wants(self, index: int) -> None:
        """Note the item that is waited for."""
        ...

    def took(self, item: Any) -> None:
        """Count what was handed over."""
        ...


class NoBound:
    """As far as the number of items allows."""

    def may_make(self, index: int) -> bool:
        """Always."""
        return True

    def made(self, worker: int, item: Any) -> None:
        """Count nothing."""

    def wants(self, index: int) -> None:
        """Note nothing."""

    def took(self, item: Any) -> None:
        """Count nothing."""


NO_BOUND = NoBound()


class ByteBound:
    """Items of `limit` bytes in all; each worker may go over it by one item. The one that is waited for is always made.

    Without a lock, which a worker that is killed could hold for ever: each worker writes to a place of its own.
    """

    def __init__(self, limit: int, workers: int, size_of: Callable[[Any], int]) -> None:
        self._limit = limit
        self._size_of = size_of
        self._made = RawArray(ctypes.c_uint64, max(1, workers))  # bytes
        self._taken = RawValue(ctypes.c_uint64, 0)
        self._wanted = RawValue(ctypes.c_int64, 0)

    @property
    def ahead(self) -> int:
        """Bytes that were made and are not taken yet."""
        return sum(self._made) - self._taken.value

    def may_make(self, index: int) -> bool:
        """Whether it is waited for, or there is room for it."""
        return index <= self._wanted.value or self.ahead < self._limit

    def made(self, worker: int, item: Any) -> None:
        """Add an item to what is there; called by that worker alone."""
        self._made[worker] += self._size_of(item)

    def wants(self, index: int) -> None:
        """Note the item that is waited for; called by the process that has the loader."""
        self._wanted.value = index

    def took(self, item: Any) -> None:
        """Take an item from what is there; called by the process that has the loader."""
        self._taken.value += self._size_of(item)
