"""Descriptions of models: those of the first version stay readable, newer ones say what reads them."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import zerovl
from tests.support.paths import ROOT
from zerovl.errors import ZeroVLError
from zerovl.model.architecture import Architecture

FROZEN = ROOT / "tests" / "assets" / "bundle_zerovl_1"  # made by zerovl 0.1.0; never made again


def description() -> dict[str, object]:
    values: dict[str, object] = json.loads((FROZEN / "config.json").read_text())
    return values


@dataclass(frozen=True)
class Newer(Architecture):
    """As a later version may have it."""

    activation: str = "none"


def test_the_frozen_bundle_of_the_first_version_is_read_and_gives_its_embeddings() -> None:
    model = zerovl.load(str(FROZEN), device="cpu")
    expected = np.load(FROZEN / "expected.npz")
    image_emb = model.encode_pixels(torch.from_numpy(expected["pixels"]))
    text_emb = model.encode_text(expected["captions"].tolist())
    # Another processor rounds otherwise; another tokenizer, tower or pooling differs in the first digits.
    np.testing.assert_allclose(image_emb.numpy(), expected["image_emb"], atol=1e-5)
    np.testing.assert_allclose(text_emb.numpy(), expected["text_emb"], atol=1e-5)


def test_what_was_written_by_the_first_version_is_written_the_same_today() -> None:
    values = description()
    assert json.loads(json.dumps(Architecture.from_json(values, "config.json").to_json())) == values


def test_a_later_field_takes_its_default_and_is_written_where_it_differs() -> None:
    old = Newer.from_json(description(), "config.json")
    assert old.activation == "none"
    assert json.loads(json.dumps(old.to_json())) == description()
    changed = dataclasses.replace(old, activation="tanh")
    assert changed.to_json()["activation"] == "tanh"
    assert Newer.from_json(json.loads(json.dumps(changed.to_json())), "config.json") == changed


def test_a_newer_format_says_which_zerovl_reads_it() -> None:
    with pytest.raises(ZeroVLError, match=r"config\.json: format 'zerovl-2' .*; install zerovl 0\.4\.0 or newer"):
        Architecture.from_json(description() | {"format": "zerovl-2", "needs_zerovl": "0.4.0"}, "config.json")
    with pytest.raises(ZeroVLError, match=r"format 'zerovl-9' .*install the newest zerovl"):
        Architecture.from_json(description() | {"format": "zerovl-9"}, "config.json")


def test_unknown_and_missing_keys_are_told_apart() -> None:
    with pytest.raises(ZeroVLError, match=r"keys \['activation'\] are not known .*install zerovl 0\.3\.0 or newer"):
        Architecture.from_json(description() | {"activation": "tanh", "needs_zerovl": "0.3.0"}, "config.json")
    values = description()
    del values["embed_dim"]
    with pytest.raises(ZeroVLError, match=r"missing keys \['embed_dim'\]; fetch the bundle again"):
        Architecture.from_json(values, "config.json")
    with pytest.raises(ZeroVLError, match=r"format None, expected 'zerovl-1'; is this a ZeroVL bundle"):
        Architecture.from_json({"hidden_size": 3}, "config.json")


def test_a_folder_of_a_newer_zerovl_is_refused_by_load(tmp_path: Path) -> None:
    for path in FROZEN.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(description() | {"format": "zerovl-2", "needs_zerovl": "0.4.0"}))
    with pytest.raises(ZeroVLError, match=r"install zerovl 0\.4\.0 or newer"):
        zerovl.load(str(tmp_path))
