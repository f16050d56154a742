"""Text towers by NumPy alone, each family against transformers' own, and the configurations that are left to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig
from transformers.activations import ACT2FN

from tests.support.paths import ROOT
from tests.support.text_towers import FAMILIES, SPECIAL_IDS, VOCABULARY
from zerovl.bundle_files import CONFIG, WEIGHTS
from zerovl.files import read_json, write_json
from zerovl.model.architecture import Architecture, load_architecture
from zerovl.model.numpy_layers import ACTIVATIONS
from zerovl.model.numpy_towers import numpy_text_tower
from zerovl.model.query_encoder import NumpyQueryEncoder
from zerovl.model.text_encoder import QueryEncoder
from zerovl.model.text_towers import create_text_tower, text_config_from

BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"
TOKENS = 141  # more than MPNet tells distances apart
SPECIAL = "a <pad> red [PAD] circle </s> two <|endoftext|> dog"
CAPTIONS = ["a dog", "two blue stars on the left", SPECIAL, "a small green square with stripes " * 30]
SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 20}
CONFIGS: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 24, "n_layers": 3, "n_heads": 3, "hidden_dim": 20, "max_position_embeddings": TOKENS},
    "roberta": {**SIZES, "max_position_embeddings": TOKENS + 2, "type_vocab_size": 1},
    "camembert": {**SIZES, "max_position_embeddings": TOKENS + 2, "type_vocab_size": 1},
    "xlm-roberta": {**SIZES, "max_position_embeddings": TOKENS + 2, "layer_norm_eps": 1e-5},
    "mpnet": {**SIZES, "max_position_embeddings": TOKENS + 2},
    "clip_text_model": {**SIZES, "max_position_embeddings": TOKENS},
    "siglip_text_model": {**SIZES, "max_position_embeddings": TOKENS + 6},
}


def architecture_of(family: str, pooling: str, **text_config: Any) -> Architecture:
    values = {"vocab_size": VOCABULARY, **SPECIAL_IDS, "pad_token_id": 1, **CONFIGS[family], **text_config}
    config = AutoConfig.for_model(family, **values)
    return replace(load_architecture(BUNDLE), text_config=config.to_dict(), pooling=pooling, max_tokens=TOKENS)


def make_bundle(folder: Path, architecture: Architecture) -> Path:
    """A model of that text tower and a stump of an image tower, no weight of which is 0 or 1."""
    folder.mkdir()
    FAMILIES[architecture.text_config["model_type"]][0](folder)
    write_json(folder / CONFIG, architecture.to_json())
    torch.manual_seed(4)
    tower = create_text_tower(text_config_from(architecture.text_config))
    weights = {f"text_tower.{name}": tensor for name, tensor in tower.state_dict().items()}
    weights["text_projection.weight"] = torch.zeros(architecture.embed_dim, 24)
    weights["image_projection.weight"] = torch.zeros(architecture.embed_dim, 5)
    weights |= {"image_tower.weight": torch.zeros(7), "temperature": torch.tensor(0.1)}
    save_file({name: tensor + 0.3 * torch.randn(tensor.shape) for name, tensor in weights.items()}, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(
    ("family", "pooling", "text_config"),
    [
        *((family, pooling, {}) for family in ("distilbert", "roberta", "mpnet") for pooling in ("first", "mean")),
        ("camembert", "mean", {}),
        ("xlm-roberta", "last", {}),
        ("xlm-roberta", "mean", {"hidden_act": "gelu_new"}),
        ("clip_text_model", "last", {}),  # quick_gelu
        ("clip_text_model", "last", {"hidden_act": "gelu"}),
        ("clip_text_model", "mean", {"hidden_act": "gelu_pytorch_tanh"}),
        ("siglip_text_model", "end", {}),
        ("siglip_text_model", "end", {"pad_token_id": 0}),
    ],
)
def test_a_family_is_that_of_transformers(
    family: str, pooling: str, text_config: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_bundle(tmp_path / "model", architecture_of(family, pooling, **text_config))
    found, expected = NumpyQueryEncoder.load(folder), QueryEncoder.load(folder, "cpu")
    assert found is not None
    lengths = expected.tokenizer(CAPTIONS)[1].sum(1)
    assert min(lengths) < TOKENS == max(lengths)  # some are padded there, one is cut
    embeddings = found.encode_text(CAPTIONS)
    np.testing.assert_allclose(embeddings, expected.encode_text(CAPTIONS), atol=1e-5)
    assert np.ptp(embeddings, axis=0).max() > 1e-3  # captions differ by far more than the two ways
    assert found.digest == expected.digest


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(
    ("max_tokens", "changes"),
    [
        (TOKENS + 7, {}),
        (TOKENS, {"is_decoder": True}),
        (TOKENS, {"hidden_act": "relu", "activation": "relu"}),
        (TOKENS, {"num_attention_heads": 5, "n_heads": 5}),
        (TOKENS, {"max_position_embeddings": None}),
        (TOKENS, {"vocab_size": 0}),
    ],
)
def test_what_no_family_computes_is_left_to_transformers(family: str, max_tokens: int, changes: dict[str, Any]) -> None:
    plain = architecture_of(family, "end" if family == "siglip_text_model" else "last")
    assert numpy_text_tower(plain) is not None
    known = {key: value for key, value in changes.items() if key in plain.text_config or key == "is_decoder"}
    other = replace(plain, text_config=plain.text_config | known, max_tokens=max_tokens)
    assert numpy_text_tower(other) is None


@pytest.mark.parametrize(
    ("family", "pooling", "max_tokens", "changes"),
    [
        ("roberta", "last", TOKENS + 1, {}),  # the id of padding and those below have no places for tokens
        ("roberta", "last", TOKENS, {"pad_token_id": None}),
        ("roberta", "last", TOKENS, {"pad_token_id": 2}),
        ("mpnet", "last", TOKENS, {"pad_token_id": 0}),
        ("mpnet", "last", TOKENS, {"relative_attention_num_buckets": 64}),
        ("distilbert", "last", TOKENS, {"num_attention_heads": 4}),  # beside its own key for it
        ("clip_text_model", "end", TOKENS, {}),
        ("siglip_text_model", "last", TOKENS, {}),
        ("siglip_text_model", "end", TOKENS, {"pad_token_id": VOCABULARY}),
        ("siglip_text_model", "end", TOKENS, {"model_type": "siglip2_text_model"}),
    ],
)
def test_what_a_family_does_not_compute_is_left_to_transformers(
    family: str, pooling: str, max_tokens: int, changes: dict[str, Any]
) -> None:
    plain = architecture_of(family, pooling)
    other = replace(plain, text_config=plain.text_config | changes, max_tokens=max_tokens)
    assert numpy_text_tower(other) is None


def test_other_weights_than_those_of_the_family_are_left_to_transformers(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model", architecture_of("clip_text_model", "last"))
    described = read_json(folder / CONFIG)
    described["text_config"]["num_hidden_layers"] = 2
    write_json(folder / CONFIG, described)
    assert NumpyQueryEncoder.load(folder) is None


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_that_of_transformers(name: str) -> None:
    inputs = np.concatenate([np.linspace(-6, 6, 301), [-300, -90, 90, 300]]).astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = ACTIVATIONS[name](inputs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ACT2FN[name](torch.from_numpy(inputs)).numpy(), atol=1e-6, rtol=1e-6)
