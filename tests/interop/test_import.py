"""What comes from open_clip is the model that it was there: embeddings, exports, and a training that goes on."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.exchange import check_trains_on, make_bundle
from zerovl import cli
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.interop import exported_note
from zerovl.interop.base import synthetic_sample
from zerovl.interop.export import export
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.import_folder import import_folder
from zerovl.model.encoder import Encoder

SAMPLE = synthetic_sample()


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    export(
        make_bundle(tmp_path, "bert", "mean", logit_bias=-4.0),
        CardFacts("tiny"),
        "open-clip",
        SAMPLE,
        tmp_path / "theirs",
    )
    return tmp_path / "theirs"


def test_there_and_back_is_the_same_model(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", str(exported), "--out", str(tmp_path / "back")]) == 0
    assert "open_clip gave 4 drawn pictures and 4 captions the same embeddings" in capsys.readouterr().out
    before, after = Encoder.load(tmp_path / "bundle", "cpu"), Encoder.load(tmp_path / "back", "cpu")
    ours, theirs = before.model.state_dict(), after.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert after.transform == before.transform
    assert after.model.architecture == before.model.architecture
    assert after.digest == before.digest  # so an index of the one is an index of the other
    check_trains_on(tmp_path / "back")


def test_a_folder_without_a_note_is_the_same_model_wherever_it_lies(exported: Path, tmp_path: Path) -> None:
    (exported / exported_note.FILE).unlink()
    import_folder(exported, tmp_path / "back")
    exported.rename(tmp_path / "moved")
    import_folder(tmp_path / "moved", tmp_path / "again")
    first, again = Encoder.load(tmp_path / "back", "cpu"), Encoder.load(tmp_path / "again", "cpu")
    assert again.digest == first.digest
    assert again.temperature == pytest.approx(Encoder.load(tmp_path / "bundle", "cpu").temperature, rel=1e-6)
    assert str(tmp_path) not in (tmp_path / "again" / "config.json").read_text()


@pytest.mark.parametrize("change", ["weight", "temperature", "transform", "note"])
def test_a_folder_that_was_changed_is_read_as_it_is_now(
    exported: Path, tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(exported / "open_clip_model.safetensors")
    if change == "weight":
        weights["visual.head.proj.weight"] += 0.1
    elif change == "temperature":
        weights["logit_scale"] += 0.1
    elif change == "transform":
        write_json(exported / "preprocess.json", read_json(exported / "preprocess.json") | {"mean": [0.1, 0.2, 0.3]})
    else:
        (exported / exported_note.FILE).write_text('{"digest": "12"}')
    save_file(weights, exported / "open_clip_model.safetensors", {"format": "pt"})
    assert cli.main(["import", str(exported), "--out", str(tmp_path / "back")]) == 0
    assert ("zerovl_model.json: not read" in capsys.readouterr().err) == (change == "note")
    before, after = Encoder.load(tmp_path / "bundle", "cpu"), Encoder.load(tmp_path / "back", "cpu")
    assert after.digest != before.digest
    assert after.temperature == pytest.approx(before.temperature * math.exp(-0.1 * (change == "temperature")), rel=1e-6)
    assert after.model.architecture.temperature == after.temperature  # the start is not known
    if change == "transform":
        assert after.model.architecture.mean == (0.1, 0.2, 0.3)


def test_a_folder_of_others_has_its_own_transform_and_names(exported: Path, tmp_path: Path) -> None:
    """As people have it: the text tower's config beside the rest, open_clip's transform, a pooling by name."""
    config = read_json(exported / "open_clip_config.json")
    config["model_cfg"]["vision_cfg"]["timm_pool"] = "avg"
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "someone/bert"
    del config["model_cfg"]["text_cfg"]["hf_model_pretrained"]  # open_clip's default would look for weights
    config["preprocess_cfg"] |= {"interpolation": "bicubic", "resize_mode": "shortest"}
    write_json(exported / "open_clip_config.json", config)
    (exported / "text_tower" / "config.json").rename(exported / "config.json")
    (exported / "preprocess.json").unlink()
    import_folder(exported, tmp_path / "back")  # compares with open_clip
    encoder = Encoder.load(tmp_path / "back", "cpu")
    assert encoder.model.architecture.image_options["global_pool"] == "avg"
    assert (encoder.transform.resize_mode, encoder.transform.interpolation) == ("shortest-rounded", "bicubic")
    export(encoder, CardFacts("tiny"), "open-clip", SAMPLE, tmp_path / "again")  # and back, with that transform


def test_an_interpolation_for_training_is_what_open_clip_evaluates_with(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_json(exported / "open_clip_config.json")
    config["preprocess_cfg"] |= {"interpolation": "random", "resize_mode": "shortest"}
    write_json(exported / "open_clip_config.json", config)
    (exported / "preprocess.json").unlink()
    assert cli.main(["import", str(exported), "--out", str(tmp_path / "back")]) == 0  # compares with open_clip
    said = capsys.readouterr()
    assert "open_clip_config.json: interpolation is 'random', for training; bicubic is read" in said.err
    assert "open_clip gave 4 drawn pictures" in said.out
    assert Encoder.load(tmp_path / "back", "cpu").transform.interpolation == "bicubic"


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("vision_cfg", "timm_model_name", None, "the weights lack visual.proj"),
        ("vision_cfg", "timm_proj", "mlp", "timm_proj is 'mlp'"),
        ("text_cfg", "hf_pooler_type", "cls_pooler", "hf_pooler_type is 'cls_pooler'.*known is cls_last"),
        ("text_cfg", "hf_model_name", "", "the weights lack token_embedding"),
    ],
)
def test_what_has_no_counterpart_is_named(
    exported: Path, tmp_path: Path, section: str, key: str, value: Any, reason: str
) -> None:
    config = json.loads((exported / "open_clip_config.json").read_text())
    config["model_cfg"][section][key] = value
    write_json(exported / "open_clip_config.json", config)
    with pytest.raises(ZeroVLError, match=rf"open_clip_config\.json: {reason}"):
        import_folder(exported, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_model_that_dvc_writes_is_no_place_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroVLError, match="that is what `dvc repro` writes"):
        import_folder(tmp_path, Path("model"))


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ZeroVLError, match=r"no open_clip_config\.json and no config\.json"):
        import_folder(tmp_path, tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroVLError, match="is there already"):
        import_folder(tmp_path, tmp_path / "out")
