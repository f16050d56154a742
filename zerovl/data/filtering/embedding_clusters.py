"""Pictures in clusters of a bounded size, by k-means of their embeddings, so that only those of a cluster are compared.

The clusters are made from above: a group that is too large is split by k-means into at most `_BRANCHES` parts, and so
are its parts. So a picture is compared with some hundred centroids however many pictures there are; flat k-means, as
the paper has it (SemDeDup, arXiv 2303.09540), compares it with as many centroids as there are clusters. Centroids are
found from a drawn sample. Equal embeddings stay together whatever the split; alike ones may be parted at a bound, the
seldomer the larger clusters are.

A group that hardly splits is mostly copies of one picture and is given as it is.

Memory is some 20 bytes a picture, and the sample.

Shapes: n pictures of a group, s of a sample, k centroids, D width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.floating]
Unit = npt.NDArray[np.float32]

_BRANCHES = 64  # parts that a group is split into at most; a place among them is a byte
_DRAWN = 256  # embeddings a centroid that centroids are found from
_ROUNDS = 10  # of k-means; more move centroids hardly
_HARDLY = 0.9  # a part that is a larger share of its group: the group does not split
_CHUNK = 16_384  # embeddings in memory at once


def unit_rows(embeddings: Embeddings, places: Places) -> Unit:
    """Return some embeddings in float32, of length one; (n, D)."""
    rows = embeddings[places].astype(np.float32)
    unit: Unit = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)
    return unit


def clusters(embeddings: Embeddings, places: Places, largest: int, seed: int) -> Iterator[Places]:
    """Give `places` (n,) of embeddings in clusters of at most `largest`, each ascending where `places` is.

    The same embeddings, places and seed give the same clusters.
    """
    open_ = [places]
    while open_:
        group = open_.pop()
        if len(group) <= largest:
            if len(group):
                yield group
            continue
        parts = _split(embeddings, group, min(_BRANCHES, 1 + -(-len(group) // largest)), seed)
        if max(map(len, parts)) > _HARDLY * len(group):
            yield group
        else:
            open_ += reversed(parts)


def _split(embeddings: Embeddings, group: Places, number: int, seed: int) -> list[Places]:
    generator = np.random.default_rng([seed, int(group[0]), len(group)])
    centroids = _centroids(embeddings, group, number, generator)
    nearest = np.empty(len(group), np.uint8)
    for start in range(0, len(group), _CHUNK):
        own = unit_rows(embeddings, group[start : start + _CHUNK])
        nearest[start : start + _CHUNK] = np.argmax(own @ centroids.T, axis=1)
    order = np.argsort(nearest, kind="stable")
    return np.split(group[order], np.cumsum(np.bincount(nearest, minlength=number))[:-1])


def _centroids(embeddings: Embeddings, group: Places, number: int, generator: np.random.Generator) -> Unit:
    """Return (k, D) directions by spherical k-means over a sample; one that no embedding is nearest to stays."""
    size = min(len(group), _DRAWN * number)
    drawn = unit_rows(embeddings, group[np.sort(generator.choice(len(group), size, replace=False))])  # (s, D)
    centroids = drawn[generator.choice(size, number, replace=False)]  # (k, D)
    for _ in range(_ROUNDS):
        nearest = np.argmax(drawn @ centroids.T, axis=1)  # (s,)
        belongs = nearest == np.arange(number)[:, None]  # (k, s)
        sums = belongs.astype(np.float32) @ drawn  # (k, D)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.where(lengths > 0, sums / lengths.clip(min=1e-12), centroids)
    return centroids
