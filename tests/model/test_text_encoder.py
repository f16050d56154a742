"""The text half of a model, against the whole model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.paths import ROOT
from zerovl.bundle_files import WEIGHTS
from zerovl.errors import ZeroVLError
from zerovl.model.encoder import Encoder
from zerovl.model.text_encoder import QueryEncoder

BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"
CAPTIONS = ["red", "a red box beside a small blue circle", ""]


def changed(folder: Path, change: dict[str, torch.Tensor | None], dtype: torch.dtype = torch.float32) -> Path:
    """Copy the bundle with some weights replaced or left out, all in `dtype`."""
    shutil.copytree(BUNDLE, folder)
    weights = {name: its for name, its in (load_file(BUNDLE / WEIGHTS) | change).items() if its is not None}
    save_file({name: its.to(dtype) for name, its in weights.items()}, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_is_the_whole_models(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = changed(tmp_path / "model", {}, dtype)
    whole, half = Encoder.load(folder, "cpu"), QueryEncoder.load(folder, "cpu")
    assert torch.equal(half.encode_text(CAPTIONS, batch_size=2), whole.encode_text(CAPTIONS, batch_size=2))
    assert half.digest == whole.digest
    assert half.transform == whole.transform


def test_another_image_tower_is_another_model(tmp_path: Path) -> None:
    name = "image_tower.cls_token"
    other = load_file(BUNDLE / WEIGHTS)[name] + 1
    found = QueryEncoder.load(changed(tmp_path / "model", {name: other}), "cpu")
    assert found.digest == Encoder.load(tmp_path / "model", "cpu").digest != QueryEncoder.load(BUNDLE, "cpu").digest


@pytest.mark.parametrize("name", ["text_projection.weight", "image_projection.weight"])
def test_a_missing_weight_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ZeroVLError, match=f"missing {name}"):
        QueryEncoder.load(changed(tmp_path / "model", {name: None}), "cpu")
