"""Find the pictures of an index that are nearest to a query: all of them are looked at, a piece at a time.

`zerovl.indexing.approximate` looks at a share of them.

Shapes: `N` pictures, `D` embedding width, `c` pictures at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zerovl.indexing.index import Index, IndexedPicture

CHUNK = 1 << 11  # pictures scored at once: their float32 fits a cache, which makes float16 four times as fast

Query = npt.NDArray[np.float32]  # (D,)

# Of embeddings (N, D), a query (D,) and k, rows and scores of k near ones, best first: `nearest`, or an approximation.
Nearest = Callable[[npt.NDArray[np.floating], Query, int], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]

MOST_ASKED = 10_000  # nearest pictures whose files are looked for, where most of them are gone


@dataclass(frozen=True)
class Found:
    """The nearest pictures, best first, and how many nearer ones are no longer there."""

    pictures: list[IndexedPicture]
    scores: list[float]  # cosines
    gone: list[str]  # keys of pictures whose files are missing


def nearest(
    embeddings: npt.NDArray[np.floating], query: Query, k: int, chunk: int = CHUNK
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return rows and scores of the k best of (N, D) for one query (D,), best first, ties in the order of rows.

    As `zerovl.evaluation.retrieval.top_items`, whatever `embeddings` are stored as, in memory for `chunk` of them.
    """
    rows, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    for start in range(0, len(embeddings), chunk):
        its_scores = widened(embeddings[start : start + chunk]) @ query  # (c,)
        if len(its_scores) > k:
            least = np.partition(its_scores, -k)[-k]
            its_rows = np.flatnonzero(its_scores >= least)  # at least k: all that tie with the last one
        else:
            its_rows = np.arange(len(its_scores))
        rows = np.concatenate([rows, its_rows + start])
        scores = np.concatenate([scores, its_scores[its_rows]])
        best = np.argsort(-scores, kind="stable")[:k]
        rows, scores = rows[best], scores[best]
    return rows, scores


def widened(embeddings: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return finite embeddings (c, D) of 16 or 32 bits in 32, as `astype`, which takes twice as long for 16.

    Sign, exponent and fraction of a float16 stand at their places of a float32 when moved by 16 and 13 bits; what is
    then too small by the difference of the two exponents' zeros is multiplied by it.
    """
    if embeddings.dtype != np.float16:
        return embeddings.astype(np.float32, copy=False)
    bits = np.ascontiguousarray(embeddings).view(np.uint16).astype(np.uint32)
    signs = bits & 0x8000
    bits &= 0x7FFF
    bits <<= 13
    signs <<= 16
    bits |= signs
    values = bits.view(np.float32)
    values *= np.float32(2.0**112)
    return values


def find(index: Index, query: Query, top: int, skip: int | None = None, search: Nearest = nearest) -> Found:
    """Return the `top` nearest pictures of an index whose files are there, without row `skip`; query (D,).

    Fewer where the index has fewer, or too many of the nearest are gone. `search` finds them: exactly, or what
    `zerovl.indexing.approximate.open_nearest` gives.
    """
    asked, most = top + 1, min(len(index), max(MOST_ASKED, top + 1))
    while True:
        rows, scores = search(index.embeddings, query, min(asked, most))
        found = [one for one in zip(index.pictures(rows.tolist()), scores.tolist(), strict=True) if one[0].row != skip]
        there = [one for one in found if one[0].is_there][:top]
        if len(there) == top or asked >= most:
            last = there[-1][0].row if len(there) == top else None
            return Found([one for one, _ in there], [score for _, score in there], _gone_before(found, last))
        asked *= 2


def _gone_before(found: list[tuple[IndexedPicture, float]], last: int | None) -> list[str]:
    """Return the keys of those that are not there, up to row `last`."""
    gone = []
    for one, _ in found:
        if not one.is_there:
            gone.append(one.key)
        if one.row == last:
            break
    return gone
