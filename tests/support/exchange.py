"""Small models with their tokenizers, as bundles that are exchanged with other libraries."""

import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.support import text_towers
from zerovl import cli, params_file
from zerovl.model import bundle
from zerovl.model.checks import check_towers
from zerovl.model.encoder import Encoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import build
from zerovl.training.start import BundleStart


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


def lines_of_card(folder: Path) -> str:
    """The three lines of Python that the README.md of an export shows."""
    (found,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(found.splitlines()) == 3
    return str(found)


def pictures_of_all_modes() -> list[Image.Image]:
    """Pictures that are turned to RGB in different ways, one of them with a transparent part."""
    gradient = Image.linear_gradient("L").resize((50, 30))
    clear = Image.merge("RGBA", (gradient, gradient, gradient, gradient.transpose(Image.Transpose.FLIP_TOP_BOTTOM)))
    wide = gradient.convert("I").point(lambda value: value * 257).convert("I;16")
    return [gradient, clear, wide, gradient.convert("P"), gradient.convert("CMYK"), gradient.convert("RGB")]


def check_trains_on(imported: Path) -> None:
    """The recipe in an imported bundle builds the same towers, and `train.init_from` fills them."""
    written = str(imported.parent / f"{imported.name}.yaml")
    assert cli.main(["recipe", str(imported / "train.yaml"), "data.raw=data/raw", "--out", written]) == 0
    params = params_file.load(written)
    check_towers(params.model)
    before = Encoder.load(imported, "cpu")
    model = build(params.model, before.tokenizer.vocab_size, seed=9, logit_bias=before.model.architecture.logit_bias)
    BundleStart(imported).load_into(model)
    after = Encoder(model, before.tokenizer, "cpu")
    captions = ["a red circle", "two blue stars"]
    assert torch.equal(after.encode_text(captions), before.encode_text(captions))
    pixels = torch.full((1, 3, params.model.image_size, params.model.image_size), 90, dtype=torch.uint8)
    assert torch.equal(after.encode_pixels(pixels), before.encode_pixels(pixels))
