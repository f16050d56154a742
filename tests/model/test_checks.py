"""Towers that cannot work are told by key, value and fix before anything starts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel
from transformers.utils import logging

from tests.support.text_towers import config_of, make_folder, settings
from zerovl import cli
from zerovl.errors import ZeroVLError
from zerovl.model.checks import check_towers
from zerovl.model.text_towers import pretrained_text_tower
from zerovl.params import ModelParams

VIT = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder("bert", tmp_path_factory.mktemp("towers") / "bert")


def with_image(folder: Path, name: str, **options: Any) -> ModelParams:
    return settings(folder, image_tower={"name": name, "options": options})


def test_a_picture_of_another_size_than_the_tower_s_is_told_with_the_fix(folder: Path) -> None:
    for name in (VIT, "mixer_s16_224"):
        with pytest.raises(ZeroVLError, match=rf"image_size 32 does not fit the image tower {name} .*img_size: 32 to"):
            check_towers(with_image(folder, name))
        check_towers(with_image(folder, name, img_size=32))
    check_towers(with_image(folder, VIT, dynamic_img_size=True))
    check_towers(with_image(folder, "resnet18"))


def test_so_is_another_size_in_training(folder: Path) -> None:
    check_towers(with_image(folder, "resnet18"), training_image_size=16)
    fixed = with_image(folder, VIT, img_size=32)
    check_towers(fixed, training_image_size=32)
    with pytest.raises(ZeroVLError, match=r"train\.image_size 16 does not fit .* or set train\.image_size to"):
        check_towers(fixed, training_image_size=16)


def test_names_options_files_and_lengths_are_told(folder: Path) -> None:
    for asked, words in (
        (with_image(folder, "resnet1818"), "timm has no model 'resnet1818'"),
        (with_image(folder, "resnet18", wheels=4), r"options: .*wheels.* do not fit resnet18"),
        (settings(folder, image_tower={"name": "resnet18", "weights": "no.pth"}), r"weights: no\.pth: no such file"),
        (settings(folder, max_tokens=13), r"max_tokens 13 is more than max_position_embeddings 12"),
        (settings(folder.parent / "lost"), "lost is not on this machine"),
    ):
        with pytest.raises(ZeroVLError, match=words):
            check_towers(asked)


def test_a_folder_of_pickled_weights_names_the_command_that_converts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder("bert", tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ZeroVLError, match=r"bert has no model\.safetensors; fetch it again"):
        check_towers(settings(folder))
    torch.manual_seed(4)
    tower = AutoModel.from_config(config_of("bert"))
    torch.save(tower.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ZeroVLError) as raised:
        check_towers(settings(folder))
    command = str(raised.value).partition("`")[2].partition("`")[0]
    assert command == f"zerovl convert-weights {folder}"
    assert cli.main(command.split()[1:]) == 0
    check_towers(settings(folder))
    for name, tensor in pretrained_text_tower(str(folder)).state_dict().items():
        torch.testing.assert_close(tensor, tower.state_dict()[name], rtol=0, atol=0)
    assert cli.main(command.split()[1:]) == 2
    assert cli.main(["convert-weights", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "model.safetensors is there already" in said
    assert "no pytorch_model.bin in it" in said


def test_what_else_stored_weights_have_is_not_listed_and_what_they_lack_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder("bert", tmp_path / "bert")
    tower = pretrained_text_tower(str(folder))
    weights, level = load_file(folder / "model.safetensors"), logging.get_verbosity()
    capfd.readouterr()

    def stored(changed: dict[str, torch.Tensor]) -> nn.Module:
        save_file(changed, folder / "aside.safetensors", {"format": "pt"})  # what was loaded may lie in the file
        (folder / "aside.safetensors").replace(folder / "model.safetensors")
        return pretrained_text_tower(str(folder))

    again = stored(weights | {"cls.predictions.bias": torch.zeros(3)})
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in tower.state_dict().items())
    said = capfd.readouterr()
    assert "UNEXPECTED" not in said.out + said.err
    assert (caplog.text, logging.get_verbosity()) == ("", level)
    (lacking,) = (name for name in weights if name.endswith("encoder.layer.0.output.dense.bias"))
    stored({name: tensor for name, tensor in weights.items() if name != lacking})
    assert "lack 1 tensor of the tower, which begins at random: encoder.layer.0.output.dense.bias" in caplog.text
    with pytest.raises(ZeroVLError, match=r"do not fit its config\.json: \S*dense\.bias has shape \[1\], expected"):
        stored(weights | {lacking: torch.zeros(1)})
