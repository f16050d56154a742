"""A bundle's text half by NumPy alone, with BERT, against the one of transformers, and what is left to that one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.paths import ROOT
from zerovl.bundle_files import CONFIG, WEIGHTS
from zerovl.commands.search import load_query_encoder
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.model.query_encoder import NumpyQueryEncoder
from zerovl.model.text_encoder import QueryEncoder

BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"
CAPTIONS = ["red", "a red box beside a small blue circle", "", "one star and " * 30]
FIRST_LAYER = "text_tower.encoder.layer.0."

Weights = dict[str, torch.Tensor]


def make_bundle(
    folder: Path,
    config: dict[str, Any],
    text_config: dict[str, Any],
    change: Callable[[Weights], object] = lambda weights: None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Copy the bundle with two layers of text tower and no weight that is 0 or 1, as those of an untrained one are."""
    shutil.copytree(BUNDLE, folder)
    weights = load_file(BUNDLE / WEIGHTS)
    weights |= {name.replace(".0.", ".1."): tensor for name, tensor in weights.items() if name.startswith(FIRST_LAYER)}
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: (tensor + 0.3 * torch.randn(tensor.shape, generator=generator)).to(dtype)
        for name, tensor in weights.items()
    }
    change(weights)
    save_file(weights, folder / WEIGHTS)
    described = read_json(BUNDLE / CONFIG) | config
    described["text_config"] |= {"num_hidden_layers": 2, **text_config}
    write_json(folder / CONFIG, described)
    return folder


@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_is_that_of_transformers(pooling: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model", {"pooling": pooling}, {}, dtype=dtype)
    found, expected = NumpyQueryEncoder.load(folder), QueryEncoder.load(folder, "cpu")
    assert found is not None
    embeddings = found.encode_text(CAPTIONS)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected.encode_text(CAPTIONS), atol=1e-5)
    assert np.ptp(embeddings, axis=0).max() > 1e-3  # captions differ by far more than the two ways
    assert found.digest == expected.digest


def with_layers_of_another_kind(weights: Weights) -> None:
    weights[f"{FIRST_LAYER}attention.output.gate"] = torch.zeros(1)


def in_bfloat16(weights: Weights) -> None:
    weights.update({name: tensor.bfloat16() for name, tensor in weights.items()})


@pytest.mark.parametrize(
    ("config", "text_config", "change"),
    [
        ({}, {"hidden_act": "relu"}, lambda weights: None),
        ({}, {"is_decoder": True}, lambda weights: None),
        ({}, {"position_embedding_type": "relative_key"}, lambda weights: None),
        ({}, {"model_type": "albert"}, lambda weights: None),
        ({"pooling": "end"}, {}, lambda weights: None),
        ({"max_tokens": 33}, {}, lambda weights: None),
        ({"logit_bias": -10.0}, {}, lambda weights: None),
        ({}, {"vocab_size": 81}, lambda weights: None),
        ({}, {}, with_layers_of_another_kind),
        ({}, {}, in_bfloat16),
    ],
)
def test_what_it_does_not_compute_is_left_to_transformers(
    config: dict[str, Any], text_config: dict[str, Any], change: Callable[[Weights], object], tmp_path: Path
) -> None:
    folder = make_bundle(tmp_path / "model", config, text_config, change)
    assert NumpyQueryEncoder.load(folder) is None


def test_a_search_takes_whichever_can(tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "plain", {}, {})
    assert isinstance(load_query_encoder(str(plain)), NumpyQueryEncoder)
    other = make_bundle(tmp_path / "other", {}, {"hidden_act": "relu"})
    assert isinstance(load_query_encoder(str(other)), QueryEncoder)


def test_what_is_wrong_is_told_as_ever(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model", {}, {}, lambda weights: weights.pop("text_projection.weight"))
    with pytest.raises(ZeroVLError, match=r"missing text_projection\.weight"):
        load_query_encoder(str(folder))
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])
    with pytest.raises(ZeroVLError, match=r"model\.safetensors: damaged"):
        load_query_encoder(str(folder))
