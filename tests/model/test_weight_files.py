"""Image towers that start from a file: what is read, what is left out, and what is refused by name."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from tests.support.towers import TEXT
from zerovl.errors import ZeroVLError
from zerovl.model.towers import build
from zerovl.model.weight_files import load_image_weights, read_tensors
from zerovl.params import ModelParams
from zerovl.training.start_block import without_effect

NAME, OPTIONS = "vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Of the tower with its classifier of three classes."""
    torch.manual_seed(5)
    found: dict[str, Tensor] = timm.create_model(NAME, num_classes=3, **OPTIONS).state_dict()
    return found


def tower() -> torch.nn.Module:
    torch.manual_seed(6)
    made: torch.nn.Module = timm.create_model(NAME, num_classes=0, **OPTIONS)
    return made


def settings(**image_tower: Any) -> ModelParams:
    text = {key: value for key, value in TEXT.items() if key not in ("model_type", "vocab_size")}
    values = {
        "image_tower": {"name": NAME, "options": OPTIONS, **image_tower},
        "text_tower": {"config": text},
        "embed_dim": 8,
        "image_size": 32,
        "resize_size": 32,
        "max_tokens": 8,
    }
    return ModelParams.model_validate(values)


@pytest.mark.parametrize("form", ["w.safetensors", "w.pth", "nested.pt", "parallel.bin"])
def test_a_file_of_timm_s_names_fills_the_tower_in_any_form(
    form: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / form
    if form == "w.safetensors":
        save_file(weights, path)
    elif form == "w.pth":
        torch.save(weights, path)
    elif form == "nested.pt":
        torch.save({"epoch": 3, "model": {"state_dict": weights, "lr": 0.1}}, path)
    else:
        torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, path)
    dual = build(settings(weights=str(path)), 40, seed=1)
    for name, tensor in dual.image_tower.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
    assert dual.architecture.image_options == OPTIONS  # a bundle asks for no file


def test_names_and_shapes_that_do_not_fit_are_told(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    changed = {name: tensor for name, tensor in weights.items() if name not in ("cls_token", "pos_embed")}
    save_file(changed | {"extra": torch.zeros(1), "pos_embed": torch.zeros(1, 2, 16)}, path)
    with pytest.raises(ZeroVLError) as raised:
        load_image_weights(tower(), path)
    said = str(raised.value)
    assert "missing cls_token\n" in said
    assert "left over extra\n" in said
    assert "pos_embed has shape [1, 2, 16], expected shape [1, 5, 16]\n" in said
    save_file({f"other.{name}": tensor for name, tensor in weights.items()}, path)
    with pytest.raises(
        ZeroVLError, match=rf"{path}: does not fit the tower, \d+ problems:(.*\n)*  and \d+ more\nname the tower"
    ):
        load_image_weights(tower(), path)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (open, ("/dev/null",))


def test_files_that_hold_no_tensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 20)
    torch.save({"a": torch.zeros(1), "lr": 0.1}, tmp_path / "mixed.pt")
    torch.save({}, tmp_path / "empty.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    for name, words in (
        ("evil.pth", "nothing of it was run"),
        ("cut.safetensors", "damaged"),
        ("mixed.pt", "expected names and tensors, found lr"),
        ("empty.pt", "expected names and tensors, found nothing"),
        ("list.pt", "holds list, expected names and tensors"),
        ("lost.pth", "no such file"),
        ("lost.safetensors", "no such file"),
        ("weights.h5", r"\.h5 is not a suffix of weights; known are \.safetensors, \.pth, \.pt, \.bin"),
    ):
        with pytest.raises(ZeroVLError, match=f"{name}: .*{words}"):
            read_tensors(tmp_path / name)


def test_weights_are_named_once() -> None:
    with pytest.raises(ValidationError, match=r"pretrained and image_tower\.weights w\.pth both name weights"):
        settings(weights="w.pth", pretrained=True)


def test_a_file_beside_a_start_has_no_effect_and_that_is_said() -> None:
    from zerovl.params_file import from_recipe

    asked = ["model.image_tower.weights=w.pth", "train.init_from=model", "prepare.tokenizer_vocab=0"]
    (note,) = without_effect(from_recipe({}, asked, "x"))
    assert note == "model.image_tower.weights w.pth has no effect: the weights of model are used"
