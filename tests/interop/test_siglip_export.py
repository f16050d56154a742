"""A model that came as a `SiglipModel` leaves as one, weight by weight, as long as it has no more parts than that."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModel, SiglipModel

from tests.support.clip_folders import make_siglip
from tests.support.exchange import lines_of_card
from zerovl.errors import ZeroVLError
from zerovl.interop.base import synthetic_sample
from zerovl.interop.export import export
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.hugging_face_export import HuggingFace
from zerovl.interop.import_folder import import_folder
from zerovl.model.encoder import Encoder

SAMPLE = synthetic_sample()


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    import_folder(make_siglip(tmp_path / "theirs"), tmp_path / "ours")
    return Encoder.load(tmp_path / "ours", "cpu")


def test_it_is_the_siglip_model_that_it_was(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(encoder, CardFacts("tiny"), "hugging-face", SAMPLE, tmp_path / "out")  # raises beyond 1e-5
    before, after = (AutoModel.from_pretrained(tmp_path / name) for name in ("theirs", "out"))
    assert isinstance(after, SiglipModel)
    ours, theirs = after.state_dict(), before.state_dict()
    moved = {"text_model.head.bias", "text_model.final_layer_norm.bias"}  # of the one into the other
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if not torch.allclose(ours[name], theirs[name], atol=1e-6)} == moved
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {"picture": Image.linear_gradient("L")}
    exec(lines_of_card(tmp_path / "out"), names)
    cosine = float(encoder.encode_text(["two skiers"]) @ encoder.encode_image([names["picture"]]).T)
    logit = cosine / encoder.model.temperature.item() + encoder.model.logit_bias.item()
    assert float(names["scores"]) == pytest.approx(logit, abs=1e-3)


def test_back_again_it_has_the_digest_of_what_was_exported(encoder: Encoder, tmp_path: Path) -> None:
    export(encoder, CardFacts("tiny"), "hugging-face", SAMPLE, tmp_path / "out")
    import_folder(tmp_path / "out", tmp_path / "back")
    assert Encoder.load(tmp_path / "back", "cpu").digest == encoder.digest


def _learned(encoder: Encoder) -> None:
    with torch.no_grad():
        encoder.model.image_projection.weight[0, 1] += 1e-3


def _shorter(encoder: Encoder) -> None:
    encoder.model.architecture = replace(encoder.model.architecture, max_tokens=12)


def _gap(encoder: Encoder) -> None:
    encoder.model.image_tower.reset_classifier(0, "avg")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_learned, "its image projection has learned, and a SiglipModel has none"),
        (_shorter, "it cuts captions at 12 tokens and reads rows of 16, .*model.max_tokens: 16 would fit"),
        (_gap, "its image tower vit_base_patch16_siglip_224 is not a ViT with SigLIP's pooling head"),
    ],
)
def test_what_a_siglip_model_has_not_is_named(encoder: Encoder, change: Callable[[Encoder], None], reason: str) -> None:
    HuggingFace().check(encoder)
    change(encoder)
    with pytest.raises(ZeroVLError, match=rf"not a SiglipModel: {reason}.*; use --to onnx, or --to open-clip"):
        HuggingFace().check(encoder)
