"""The order in which the tars of a source come: drawn again for each pass, without end, shared out among readers.

A reader is one loader process of one rank. Reader j of R takes every R-th tar of the endless order, so that each tar
is read once a pass by one of them; it takes them in chapters of some tars, at whose ends its shuffle buffer is empty
(and where one pass ends in a chapter).
All of it is computed from (seed, source): what a reader has read is known by two numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zerovl.data.batches.permutation import Permutation


@dataclass(frozen=True)
class TarOrder:
    """Passes over the tars of a source, one after the other, each in an order of its own."""

    tars: Sequence[str]
    seed: int
    source: str

    def at(self, position: int) -> str:
        """Return the tar at a position of the endless order."""
        number, place = divmod(position, len(self.tars))
        permuted = Permutation(len(self.tars), self.seed, "tars of a pass", self.source, number)
        return self.tars[int(permuted(np.array([place]))[0])]


@dataclass(frozen=True)
class Share:
    """What one of `readers` takes of the order from position `first` on, in chapters of `chapter_tars` tars."""

    first: int
    reader: int
    readers: int
    chapter_tars: int

    def positions(self, chapter: int) -> list[int]:
        """Return the positions of a chapter."""
        begin = self.first + self.reader + self.readers * chapter * self.chapter_tars
        return [begin + self.readers * number for number in range(self.chapter_tars)]


@dataclass(frozen=True)
class Place:
    """How far a reader of a source has come: the chapter, and the samples that it has given of it."""

    chapter: int = 0
    given: int = 0
