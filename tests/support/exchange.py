"""Small models with their tokenizers, as bundles that are exchanged with other libraries."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.support import text_towers
from zerovl.model import bundle
from zerovl.model.encoder import Encoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import build


def make_bundle(
    root: Path, family: str = "bert", pooling: str = "auto", logit_bias: float | None = None, **changes: Any
) -> Encoder:
    """A bundle in `root/bundle`, with a text tower of a family and a ViT of one block; `changes` are of `model`."""
    folder = text_towers.make_folder(family, root / "text")
    section = text_towers.settings(folder, **{"resize_size": 40, **changes})
    text_tower = section.text_tower.model_copy(update={"pooling": pooling})
    model = build(section.model_copy(update={"text_tower": text_tower}), 1, seed=3, logit_bias=logit_bias)
    with torch.no_grad():  # weights that start as zeros would hide their place
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.02)
    bundle.save(model, CaptionTokenizer(folder, section.max_tokens), root / "bundle")
    return Encoder.load(root / "bundle", device="cpu")


def pictures_of_all_modes() -> list[Image.Image]:
    """Pictures that are turned to RGB in different ways, one of them with a transparent part."""
    gradient = Image.linear_gradient("L").resize((50, 30))
    clear = Image.merge("RGBA", (gradient, gradient, gradient, gradient.transpose(Image.Transpose.FLIP_TOP_BOTTOM)))
    wide = gradient.convert("I").point(lambda value: value * 257).convert("I;16")
    return [gradient, clear, wide, gradient.convert("P"), gradient.convert("CMYK"), gradient.convert("RGB")]
