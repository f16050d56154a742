"""How well `train.shuffle: blocks` mixes beside the global permutation: what of the disk's order is left in a batch."""

from __future__ import annotations

import numpy as np

from benchmarks.common import Record, rounded
from zerovl.data.batches.epochs import EpochStream
from zerovl.data.batches.shuffle import LapBlocks, LapShuffle, anywhere


def mixing(group: int, pairs: int, shard_pairs: int, batch: int, batches: int) -> Record:
    """Two statistics of batches evenly spread over an epoch; `group` shards a block, 0 for the global permutation.

    The mean distance of two pairs of a batch on disk, as a share of all pairs (1/3 where the order is forgotten), and
    the share of two pairs of a batch that come from one shard (one over the number of shards).
    """
    bounds = np.minimum(np.arange(0, pairs + shard_pairs, shard_pairs), pairs)
    shuffle: LapShuffle = LapBlocks(bounds, group) if group else anywhere
    stream = EpochStream(pairs, batch, "mixing", shuffle=shuffle)
    distances, same = [], []
    for k in np.linspace(0, pairs // batch - 1, batches).astype(int).tolist():
        rows = np.sort(stream.batch(k))  # (B,)
        ranks = np.arange(batch)
        # Of all pairs of sorted rows, row i is the larger one i times and the smaller one B - 1 - i times.
        together = float(((2 * ranks - batch + 1) * rows).sum()) / (batch * (batch - 1) / 2)
        distances.append(together / pairs)
        counts = np.unique(rows // shard_pairs, return_counts=True)[1]
        same.append(float((counts * (counts - 1)).sum()) / (batch * (batch - 1)))
    return {
        "group": group,
        "distance": rounded(float(np.mean(distances))),
        "same_shard": rounded(float(np.mean(same))),
        "shards": int(bounds.size - 1),
    }
