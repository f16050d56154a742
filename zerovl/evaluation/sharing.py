"""Deal the batches of an evaluation over ranks, and bring together what each made of its own.

Batch number k belongs to rank k mod W, and of the s-th source to rank (k + s) mod W: the last batch of a source is a
small one, and else the same rank had it of each. What a batch holds does not depend on W, so neither does what a model
makes of it. Tensors are brought together bit by bit, on the CPU, and each row is in memory once: of large pools
embeddings are most of what there is.

Shapes: `N` rows of all batches, `n` of one, `D` their width, `W` ranks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, zip_longest
from typing import TypeVar

import torch
from torch import Tensor

from zerovl.distributed.ranks import Ranks

Fact = TypeVar("Fact")
_ABSENT = object()
_SUMMED_AT_ONCE = 1 << 22  # numbers: a sum over ranks needs as much memory again


def own(ranks: Ranks, source: int = 0) -> slice:
    """Return which batches of a source, by its number, are this rank's."""
    return slice((ranks.rank - source) % ranks.world_size, None, ranks.world_size)


def facts_of_all(own_facts: Sequence[Fact], ranks: Ranks, source: int = 0) -> list[Fact]:
    """Return what is known of each batch, in the order of the batches, from what each rank knows of its own: JSON."""
    if ranks.world_size == 1:
        return list(own_facts)
    by_rank = [json.loads(text) for text in _gather_bytes(json.dumps(own_facts).encode(), ranks)]
    first = source % ranks.world_size  # rank of the first batch
    rounds = chain.from_iterable(zip_longest(*by_rank[first:], *by_rank[:first], fillvalue=_ABSENT))
    return [fact for fact in rounds if fact is not _ABSENT]


class RowsOfAll:
    """The rows of all batches, (N, D) float32, each put into its place by the rank that made it."""

    def __init__(self, rows: int, ranks: Ranks) -> None:
        self._rows, self._ranks = rows, ranks
        self._whole: Tensor | None = None  # there once a part says how wide rows are

    def put(self, places: slice | Tensor, part: Tensor) -> None:
        """Take own rows, (n, D), into their places among all: a slice, or the numbers (n,)."""
        if self._whole is None:
            self._whole = torch.zeros(self._rows, part.shape[1])
        self._whole[places] = part

    def whole(self) -> Tensor:
        """Return the rows of all ranks, (N, D), the same on each; (N, 0) where nobody has any. A collective."""
        own_width = 0 if self._whole is None else self._whole.shape[1]
        width = max(facts_of_all([own_width], self._ranks))
        whole = torch.zeros(self._rows, width) if self._whole is None else self._whole
        if self._ranks.world_size > 1 and width:
            # As integers: what is another rank's is 0 here, so the sum is the very bits, the sign of a zero too.
            for part in whole.view(torch.int32).split(max(1, _SUMMED_AT_ONCE // width)):
                self._ranks.collectives.sum(part)
        return whole


def rows_of_all(own_parts: Iterable[Tensor], sizes: Sequence[int], ranks: Ranks) -> Tensor:
    """Return the rows of all batches, (N, D), from those of each rank's own, (n, D) float32 a batch.

    `sizes` says how many rows each of all batches has; one without any has no part.
    """
    whole = RowsOfAll(sum(sizes), ranks)
    places = list(zip(accumulate(sizes, initial=0), sizes, strict=False))[own(ranks)]
    for start, part in zip((start for start, size in places if size), own_parts, strict=True):
        whole.put(slice(start, start + len(part)), part)
    return whole.whole()


def _gather_bytes(data: bytes, ranks: Ranks) -> list[bytes]:
    """Return what each rank has, by rank."""
    sizes = ranks.collectives.gather(torch.tensor([len(data)])).tolist()
    padded = torch.zeros(1, max(sizes), dtype=torch.uint8)
    padded[0, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    rows = ranks.collectives.gather(padded)
    return [bytes(row[:size].numpy()) for row, size in zip(rows, sizes, strict=True)]
