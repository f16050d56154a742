"""Show training pictures otherwise each epoch, as the paper's linear probe does: RandomResizedCrop, then AutoAugment.

Every picture is read, decoded and encoded once an epoch, so a probe by views costs as many passes through the tower as
it has epochs. A view is a pure function of seed, epoch and place of the picture: the same on any number of ranks.

Shapes: `n` pictures, `m` of a batch, `H` and `W` pixels, `w` width of the tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from zerovl import cores
from zerovl.data.batches.augmentation import PillowTransform
from zerovl.data.batches.randomness import keys64
from zerovl.data.raw.records import Picture
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.encoding import MOST_THREADS, PixelEncoder, read_bytes
from zerovl.evaluation.sharing import own, rows_of_all
from zerovl.images import BrokenImageError, decode_rgb
from zerovl.params import AugmentParams

AUGMENT = AugmentParams(crop_scale=(0.08, 1.0), auto_augment=True)  # the paper's linear probe; it flips nothing


@dataclass(frozen=True)
class AugmentedViews:
    """Gives the features of pictures as an epoch shows them."""

    pictures: Sequence[Picture]  # n that can be read
    encode: PixelEncoder  # pixels uint8 (m, 3, H, W) -> (m, w)
    image_size: int
    batch_size: int  # pictures decoded and encoded at once
    seed: int
    ranks: Ranks = ALONE  # who share the batches; all give the same

    def __call__(self, epoch: int) -> Tensor:
        """Return features (n, w); raises `ZeroVLError` where a picture is no longer what it was."""
        batches = [
            range(start, min(start + self.batch_size, len(self.pictures)))
            for start in range(0, len(self.pictures), self.batch_size)
        ]
        with ThreadPoolExecutor(min(MOST_THREADS, cores.core_count())) as pool:
            parts = [self.encode(self._pixels(pool, epoch, places)) for places in batches[own(self.ranks)]]
        return rows_of_all(parts, [len(places) for places in batches], self.ranks)

    def _pixels(self, pool: Executor, epoch: int, places: range) -> Tensor:
        """Return the views of some pictures, uint8 (m, 3, H, W)."""
        return torch.stack(list(pool.map(partial(self._view, epoch), places)))

    def _view(self, epoch: int, place: int) -> Tensor:
        picture = self.pictures[place]
        try:
            image = decode_rgb(read_bytes(picture))
        except (OSError, BrokenImageError) as error:
            raise ZeroVLError(
                f"{picture.path}: could be read before and cannot now ({error}); leave the set as it is while it is "
                "evaluated, and evaluate again"
            ) from None
        # Not `TrainTransform`: it decodes into memory of its own, which threads would share.
        transform = PillowTransform(self.image_size, AUGMENT)
        return transform(image, keys64(1, "view", self.seed, epoch, place)[0])
