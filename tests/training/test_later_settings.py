"""Settings of fine-tuning came later: files and runs of before mean the same without them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.towers import model
from zerovl import params_file
from zerovl.params import Params, as_dict
from zerovl.params_file import from_recipe
from zerovl.training import fingerprint

LATER = ("epoch_of", "fine_tuning", "ema_decay", "image_dropout", "text_dropout", "image_size")


def described(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    manifest: Any = SimpleNamespace(digest="data")
    architecture = model().architecture
    return fingerprint.describe(from_recipe({}, list(overrides), "x"), architecture, manifest, tmp_path, None, None)


def test_an_older_file_is_read() -> None:
    values = as_dict(Params())
    for key in LATER:
        del values["train"][key]
    del values["train"]["augment"]["flip_probability"]
    del values["train"]["augment"]["decode"]
    del values["machine"]["cache_features"]
    assert params_file.parse(values, "older.yaml") == Params()


def test_at_its_default_a_setting_is_not_part_of_the_name(tmp_path: Path) -> None:
    before = described(tmp_path)
    assert not set(LATER) & before["train"].keys()
    assert not {"flip_probability", "decode"} & before["train"]["augment"].keys()
    assert before == described(tmp_path, "machine.cache_features=false")


@pytest.mark.parametrize("key", ["ema_decay", "image_dropout", "augment.flip_probability", "fine_tuning.layer_decay"])
def test_changed_it_is_and_the_change_is_named(key: str, tmp_path: Path) -> None:
    before, after = described(tmp_path), described(tmp_path, f"train.{key}=0.5")
    assert fingerprint.digest(before) != fingerprint.digest(after)
    default = "1.0" if key == "fine_tuning.layer_decay" else "0.0"
    assert fingerprint.differences(before, after) == [f"train.{key}: {default} -> 0.5"]
    assert fingerprint.differences(after, before) == [f"train.{key}: 0.5 -> {default}"]


def test_a_run_that_was_fine_tuned_keeps_its_name_without_the_temperatures_share(tmp_path: Path) -> None:
    before = described(tmp_path, "train.fine_tuning.layer_decay=0.5")
    assert "temperature_lr_scale" not in before["train"]["fine_tuning"]
    changed = described(tmp_path, "train.fine_tuning.layer_decay=0.5", "train.fine_tuning.temperature_lr_scale=0.1")
    assert fingerprint.differences(before, changed) == ["train.fine_tuning.temperature_lr_scale: 1.0 -> 0.1"]
    alone = described(tmp_path, "train.fine_tuning.temperature_lr_scale=0.1")
    assert fingerprint.differences(described(tmp_path), alone) == ["train.fine_tuning.temperature_lr_scale: 1.0 -> 0.1"]
