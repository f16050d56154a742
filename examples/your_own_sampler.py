"""A sampler of one's own: each batch takes as many pairs of one source as of any other.

    zerovl prepare                          # once: makes the shards and the manifest that this reads
    python examples/your_own_sampler.py     # in the project's folder

A sampler says which pairs make the batch of a step, as a pure function of (seed, step): it holds no state, so a run
resumes at any step and on any number of ranks. The loader does the rest: reading, augmentation, tokens, worker
processes. docs/extending.md says how `params.yaml` comes to name a sampler.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from zerovl import params_file
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.epochs import EpochStream
from zerovl.data.batches.loader import train_batches
from zerovl.data.batches.sampling import MIXED, GlobalBatch
from zerovl.data.batches.sides import Pictures
from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.model.text import CaptionTokenizer
from zerovl.workspace import Workspace


class BalancedSampler:
    """Gives every source the same number of pairs in each batch, however large the sources are."""

    def __init__(self, sizes: dict[str, int], share: int, steps: int, seed: int) -> None:
        """Draw `share` pairs of each source of `sizes` for each of `steps` batches."""
        self.sources = tuple(sorted(sizes))
        self.batch_size = share * len(sizes)
        self.steps = steps
        # Each source is passed through in an order that is new in each epoch and computed, not stored.
        self._streams = [EpochStream(sizes[name], share, seed, name) for name in self.sources]

    def batch(self, step: int) -> GlobalBatch:
        """Return the pairs of a step."""
        rows = np.stack([stream.batch(step) for stream in self._streams], axis=1).ravel()
        source_ids = np.tile(np.arange(len(self.sources), dtype=np.uint16), rows.size // len(self.sources))
        return GlobalBatch(step, MIXED, self.sources, source_ids, rows)


def main() -> None:
    """Print what is in the first batches."""
    params, workspace = params_file.load("params.yaml"), Workspace()
    manifest = Manifest.load(workspace.manifest)
    sizes = manifest.training_sizes()
    share = min(8, *sizes.values())
    batches = train_batches(
        manifest=manifest,
        shards=ShardReader(workspace.shards),
        sampler=BalancedSampler(sizes, share, steps=3, seed=params.train.seed),
        tokenize=CaptionTokenizer(workspace.tokenizer, params.model.max_tokens),
        images=Pictures(TrainTransform(params.model.image_size, params.train.augment)),
        augment=params.train.augment,
        micro_batch=share * len(sizes),
        seed=params.train.seed,
        rank=0,
        world_size=1,
    )
    with batches:
        for batch in batches:
            (micro,) = batch.micro_batches
            counts = Counter(key.rpartition("-")[0] for key in micro.keys)
            shapes = f"images {tuple(micro.images.shape)}, tokens {tuple(micro.input_ids.shape)}"
            print(f"step {batch.step}: {shapes}, pairs {dict(sorted(counts.items()))}")


if __name__ == "__main__":
    main()
