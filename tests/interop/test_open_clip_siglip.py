"""SigLIP in open_clip's form: timm's tower, its own text transformer, captions cleaned before they are read."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.exchange import check_trains_on
from tests.support.open_clip_folders import make_siglip
from zerovl.interop.base import Sample, largest_difference, synthetic_sample
from zerovl.interop.export import export
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.import_folder import import_folder
from zerovl.interop.open_clip_import import _embed
from zerovl.model.encoder import Encoder

SAMPLE = synthetic_sample()
UNTIDY = ["A  RED, circle!", "the_dog's\ttoy ", "(two) Blue-stars"]  # words as people write them
SECOND = {"act_kwargs": {"approximate": "tanh"}, "proj_bias": None, "tokenizer_kwargs": {"clean": "lower"}}


@pytest.mark.parametrize("text", [{}, SECOND], ids=["canonicalised", "tanh-lower"])
def test_the_embeddings_are_those_of_open_clip(text: dict[str, Any], tmp_path: Path) -> None:
    folder = make_siglip(tmp_path / "theirs", **text)
    import_folder(folder, tmp_path / "ours")
    encoder = Encoder.load(tmp_path / "ours", "cpu")
    sample = Sample(SAMPLE.pictures, [*SAMPLE.captions, *UNTIDY], "drawn")
    images, texts = _embed(folder, sample)
    assert largest_difference(encoder.encode_image(sample.pictures), images) < 1e-5
    assert largest_difference(encoder.encode_text(sample.captions), texts) < 1e-5
    assert largest_difference(encoder.encode_text(["dog"]), texts[2:3]) < 1e-5  # alone, without padding to others
    assert float(texts.std(0).min()) > 1e-3  # they say something
    assert float(encoder.model.logit_bias.detach()) == pytest.approx(-10, abs=0.5)
    check_trains_on(tmp_path / "ours")
    with torch.no_grad():
        encoder.model.image_projection.weight.add_(torch.randn(16, 16) * 0.1)  # as a training does
    export(encoder, CardFacts("tiny"), "open-clip", sample, tmp_path / "again")  # raises beyond 1e-5
