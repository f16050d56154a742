"""Batches for training over the small shards of `shard_fixture`."""

from typing import Any

from tests.support.shard_fixture import WordTokenizer, Written
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.loader import TrainBatches, train_batches
from zerovl.data.batches.sampling import make_sampler
from zerovl.data.batches.sides import Pictures
from zerovl.data.shards import ShardReader
from zerovl.params import AugmentParams

SIZES = {"web": 40, "art": 24}
BATCH = 16


def batches_of(written: Written, **changes: Any) -> TrainBatches:
    """Batches of sources of `SIZES`; `changes` are settings other than the usual ones."""
    options: dict[str, Any] = {"kind": "debiased", "epochs": 2.0, "seed": 7, "tokenize": WordTokenizer()} | changes
    kind, epochs, seed = options.pop("kind"), options.pop("epochs"), options.pop("seed")
    augment = options.pop("augment", AugmentParams())
    defaults: dict[str, Any] = {
        "micro_batch": 4,
        "rank": 0,
        "world_size": 1,
        "shards": ShardReader(written.shards),
        "images": Pictures(TrainTransform(24, augment)),
        "sampler": make_sampler(kind, SIZES, BATCH, epochs, seed),
    }
    return train_batches(
        manifest=written.manifest,
        augment=augment,
        seed=seed,
        **(defaults | options),
    )
