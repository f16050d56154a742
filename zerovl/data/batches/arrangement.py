"""Which pairs of a rank's batch go through the towers together: as drawn, or those with captions of like length.

A micro-batch is padded to its longest caption, so a batch in the order of caption lengths holds little padding: the
text tower has that much less to do. The loss is over the whole batch and does not know the order; what does are draws
for a place in it (dropout of the towers), the partners of mixup, and BatchNorm.

Legend: `b` pairs of a rank's batch, `m` of a micro-batch, `L` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from zerovl.data.batches.encoded_pictures import joined
from zerovl.data.batches.loader import MicroBatch
from zerovl.errors import ZeroVLError

Arrange = Callable[[Iterator[MicroBatch]], Iterator[MicroBatch]]  # the micro-batches of one step, as they arrive


def as_drawn(arriving: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
    """Return the micro-batches as they are, each when it is there."""
    return arriving


@dataclass(frozen=True)
class ByCaptionLength:
    """The pairs of a batch from the shortest caption to the longest, in as many micro-batches of the same size."""

    pad: int  # the id behind the end of a caption

    def __call__(self, arriving: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
        """Return the same b pairs, when all are there; those whose text side is stored features as they come."""
        first = next(arriving)
        if not first.attention_mask.shape[1]:
            return chain([first], arriving)
        batch = [first, *arriving]
        lengths = torch.cat([part.attention_mask.sum(1) for part in batch])  # (b,)
        keys = [key for part in batch for key in part.keys]
        images = joined([part.images for part in batch])  # (b, ...)
        input_ids = _joined([part.input_ids for part in batch], self.pad)  # (b, L)
        mask = _joined([part.attention_mask for part in batch], 0)  # (b, L)
        known = [part.identities for part in batch if part.identities is not None]
        identities = torch.cat(known) if known else None  # (b, 2)
        arranged = []
        for places in lengths.argsort(stable=True).split(len(batch[0].keys)):
            longest = int(lengths[places].max())
            part = MicroBatch(
                images[places],
                input_ids[places, :longest],
                mask[places, :longest],
                [keys[place] for place in places.tolist()],
                batch[0].source,
                None if identities is None else identities[places],
            )
            arranged.append(part.pin_memory() if batch[0].input_ids.is_pinned() else part)
        return iter(arranged)


def arrange_by(name: str, pad: int) -> Arrange:
    """Return what `train.pair_order` names; raises `ZeroVLError` for an unknown name."""
    if name == "drawn":
        return as_drawn
    if name == "caption_length":
        return ByCaptionLength(pad)
    raise ZeroVLError(f"train.pair_order {name!r}: unknown; set it to drawn or caption_length")


def _joined(parts: list[Tensor], value: int) -> Tensor:
    """Rows of different width under each other, filled up with `value`."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=value) for part in parts])
