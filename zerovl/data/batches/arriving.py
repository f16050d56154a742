"""Items that are used while later ones are still being made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar, overload

Item = TypeVar("Item", covariant=True)


class Arriving(Sequence[Item], Generic[Item]):
    """The next `count` items of an iterator: each is waited for when it is first looked at, and kept.

    Raises `RuntimeError` where the iterator ends before.
    """

    def __init__(self, source: Iterator[Item], count: int) -> None:
        self._source = source
        self._count = count
        self._arrived: list[Item] = []

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        places = range(self._count)[index]
        self._take(max(places, default=-1) + 1 if isinstance(places, range) else places + 1)
        return self._arrived[index]

    def __iter__(self) -> Iterator[Item]:
        # That of `Sequence` would take an IndexError of the source for the end.
        return (self[place] for place in range(self._count))

    def complete(self) -> None:
        """Wait for all that have not arrived yet."""
        self._take(self._count)

    def _take(self, count: int) -> None:
        while len(self._arrived) < count:
            for item in self._source:
                self._arrived.append(item)
                break
            else:
                raise RuntimeError(f"{len(self._arrived)} of {self._count} items had arrived when their loader ended")
