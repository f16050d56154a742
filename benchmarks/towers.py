"""The towers and the synthetic pairs that steps are measured with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zerovl import params
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.towers import build
from zerovl.params import ImageTowerParams, ModelParams, TextTowerParams

FORWARD_FLOPS = 39.4e9  # a pair through ViT-B/16 at 224 and BERT-base at 25 tokens, two a multiply-add


def _bert(width: int, layers: int, heads: int) -> TextTowerParams:
    return TextTowerParams(
        config={
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "max_position_embeddings": 64,
        }
    )


def _vit(width: int, depth: int, heads: int, side: int, patch: int) -> ImageTowerParams:
    options = {"img_size": side, "patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads}
    return ImageTowerParams(name="vit_tiny_patch16_224", options=options)


TOWERS = {
    "tiny": ModelParams(image_tower=_vit(32, 1, 2, 32, 16), text_tower=_bert(32, 1, 2), image_size=32, resize_size=32),
    "vit": ModelParams(image_tower=_vit(192, 4, 3, 64, 8), text_tower=_bert(128, 2, 4), image_size=64, resize_size=64),
    "demo": params.Params().model,
    "base": ModelParams(
        image_tower=ImageTowerParams(name="vit_base_patch16_224", options={}),
        text_tower=_bert(768, 12, 12),
        embed_dim=512,
        image_size=224,
        resize_size=224,
    ),
}
WORDS = {
    "tiny": "1-layer ViT of width 32 and 1-layer BERT",
    "vit": "ViT of 4 layers, width 192, 64 patches of a 64 x 64 image; BERT of 2 layers, width 128, dropout 0.1",
    "demo": "the demo's: a short ResNet at 64 x 64 and a BERT of 2 layers, width 128, no dropout",
    "base": "ViT-B/16 at 224 x 224 and BERT-base, untrained",
}
MAX_TOKENS = 25
VOCABULARY = {"tiny": 100, "vit": 8000, "demo": 1000, "base": 30522}


def make(towers: str, device: torch.device) -> DualEncoder:
    """In training mode, so with the dropout that its config has."""
    return build(TOWERS[towers], VOCABULARY[towers], seed=0).to(device).train()


@dataclass(frozen=True)
class MicroBatch:
    images: Tensor  # (m, 3, H, W) uint8
    input_ids: Tensor  # (m, L)
    attention_mask: Tensor  # (m, L)
    identities: None = None  # no two pairs are equal

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.images, self.input_ids, self.attention_mask

    def pinned(self) -> MicroBatch:
        return MicroBatch(*(part.pin_memory() for part in self.tensors()))


def caption_lengths(count: int) -> npt.NDArray[np.int64]:
    """Tokens a caption with [CLS] and [SEP]: normal about 12.5 with deviation 3, which is close to COCO's."""
    drawn = np.random.default_rng(0).normal(12.5, 3.0, count).round().astype(np.int64)
    return np.clip(drawn, 5, MAX_TOKENS)


def make_batch(
    towers: str, count: int, micro_batch: int, lengths: npt.NDArray[np.int64] | None = None, padded_to: int = 0
) -> list[MicroBatch]:
    """Random pairs on the host, in micro-batches; the same pairs for any size of them.

    `lengths` are those of the captions, without it all fill `MAX_TOKENS`; a micro-batch is padded to
    its longest caption, or to `padded_to` where that is longer.
    """
    side = TOWERS[towers].image_size
    lengths = np.full(count, MAX_TOKENS) if lengths is None else lengths
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    ids = torch.randint(5, VOCABULARY[towers], (count, max(MAX_TOKENS, padded_to)), generator=generator)
    batch = []
    for start in range(0, count, micro_batch):
        part = slice(start, start + micro_batch)
        own = torch.from_numpy(lengths[part])  # (m,)
        longest = max(int(own.max()), padded_to)
        mask = (torch.arange(longest) < own[:, None]).long()  # (m, L)
        batch.append(MicroBatch(images[part], ids[part, :longest] * mask, mask))
    return batch
