"""Models that are built for the weights of a file: nothing is drawn that those replace, all else is as ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from packaging.version import Version
from torch import nn

from tests.support.paths import ROOT
from tests.support.text_towers import FAMILIES, make_folder
from zerovl.model import towers
from zerovl.model.architecture import load_architecture
from zerovl.model.text_towers import create_text_tower, named_text_config
from zerovl.model.undrawn import UndrawnParameters

BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"
IMAGE_TOWERS = ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224"]
OLD_TIMM = Version(timm.__version__) < Version("1.0.31")  # whose ViT draws some aside, which is slower and no error


def check_undrawn(build: Callable[[], nn.Module], draws_aside: bool = False) -> None:
    """Nothing is drawn, and buffers, which may be in no file, are what they are in a drawn module."""
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with UndrawnParameters():
        undrawn = build()
    assert draws_aside or torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    drawn = build()
    assert not torch.equal(torch.get_rng_state(), state)
    expected = dict(drawn.named_buffers())
    found = dict(undrawn.named_buffers())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("name", IMAGE_TOWERS)
def test_image_towers(name: str) -> None:
    draws_aside = OLD_TIMM and name == "vit_tiny_patch16_224"
    check_undrawn(lambda: towers.timm_tower(name, {}, False), draws_aside)


# Of SigLIP's some are drawn aside, by torch's `trunc_normal_`, which tells nobody where they will go.
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"siglip_text_model"}))
def test_text_towers(family: str, tmp_path: Path) -> None:
    config = named_text_config(str(make_folder(family, tmp_path / "tower")))
    check_undrawn(lambda: create_text_tower(config))


def test_a_model_to_be_filled_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    model = towers.to_be_filled(load_architecture(BUNDLE))
    assert torch.equal(torch.get_rng_state(), state)
    expected = towers.from_architecture(load_architecture(BUNDLE)).state_dict()
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
