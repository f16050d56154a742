"""Deal the batches of an evaluation over ranks, and bring together what each made of its own.

Batch number k belongs to rank k mod W. What a batch holds does not depend on W, so neither does what a model makes of
it. Tensors are brought together bit by bit, on the CPU.

Shapes: `N` rows of all batches, `n` of one, `D` their width, `W` ranks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, chain, zip_longest
from typing import TypeVar

import torch
from torch import Tensor

from zerovl.distributed.ranks import Ranks

Fact = TypeVar("Fact")
_ABSENT = object()


def own(ranks: Ranks) -> slice:
    """Return which batches are this rank's."""
    return slice(ranks.rank, None, ranks.world_size)


def facts_of_all(own_facts: Sequence[Fact], ranks: Ranks) -> list[Fact]:
    """Return what is known of each batch, in the order of the batches, from what each rank knows of its own: JSON."""
    if ranks.world_size == 1:
        return list(own_facts)
    texts = _gather_bytes(json.dumps(own_facts).encode(), ranks)
    by_rank = [json.loads(text) for text in texts]
    rounds = chain.from_iterable(zip_longest(*by_rank, fillvalue=_ABSENT))
    return [fact for fact in rounds if fact is not _ABSENT]


def rows_of_all(own_parts: Sequence[Tensor], sizes: Sequence[int], ranks: Ranks) -> Tensor:
    """Return the rows of all batches, (N, D), from those of each rank's own, (n, D) float32 a batch.

    `sizes` says how many rows each of all batches has; one without any has no part.
    """
    if ranks.world_size == 1:
        return torch.cat(list(own_parts)) if own_parts else torch.empty(0, 0)
    width = max(facts_of_all([part.shape[1] for part in own_parts], ranks), default=0)
    whole = torch.zeros(sum(sizes), width)
    places = list(zip(accumulate(sizes, initial=0), sizes, strict=False))[own(ranks)]
    for start, part in zip((start for start, size in places if size), own_parts, strict=True):
        whole[start : start + len(part)] = part
    # As integers: what is another rank's is 0 here, and the sum is the very bits, the sign of a zero among them.
    ranks.collectives.sum(whole.view(torch.int32))
    return whole


def _gather_bytes(data: bytes, ranks: Ranks) -> list[bytes]:
    """Return what each rank has, by rank."""
    sizes = ranks.collectives.gather(torch.tensor([len(data)])).tolist()
    padded = torch.zeros(1, max(sizes), dtype=torch.uint8)
    padded[0, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    rows = ranks.collectives.gather(padded)
    return [bytes(row[:size].numpy()) for row, size in zip(rows, sizes, strict=True)]
