"""Text towers for use alone, without transformers: the same weights by name, and the same numbers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.paths import ROOT
from tests.support.text_towers import FAMILIES, config_of
from zerovl.model import towers
from zerovl.model.architecture import Architecture, load_architecture
from zerovl.model.inference_layers import ACTIVATIONS
from zerovl.model.inference_towers import InferenceTextTower, inference_text_tower
from zerovl.model.numpy_layers import ACTIVATIONS as KNOWN_ACTIVATIONS
from zerovl.model.text_towers import create_text_tower, text_config_from

BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"
LENGTHS = {"padded": [3, 10, 7, 1], "full": [10] * 4}
ACTIVATION_KEYS = {"distilbert": "activation"}


def architecture_of(family: str, **text_config: Any) -> Architecture:
    values = config_of(family).to_dict() | text_config
    pooling = "end" if family == "siglip_text_model" else "last"
    return replace(load_architecture(BUNDLE), text_config=values, pooling=pooling, max_tokens=12)


def both(architecture: Architecture) -> tuple[InferenceTextTower, nn.Module]:
    """A tower and that of transformers, with the same weights, none of which is 0 or 1."""
    torch.manual_seed(1)
    expected = create_text_tower(text_config_from(architecture.text_config)).eval()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    found = inference_text_tower(architecture)
    assert found is not None
    found.load_state_dict(expected.state_dict())  # strict: of the same names
    return found.eval(), expected


def inputs(family: str, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Padded where the mask is 0, as the families that look at padding know it."""
    mask = (torch.arange(10) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(2, 80, (4, 10), generator=torch.Generator().manual_seed(0))
    padding = config_of(family).pad_token_id
    return ids.masked_fill(mask == 0, 0 if padding is None else padding), mask


def check(found: nn.Module, expected: nn.Module, ids: Tensor, mask: Tensor, tolerance: float) -> None:
    with torch.inference_mode():
        ours, theirs = (tower(input_ids=ids, attention_mask=mask).last_hidden_state for tower in (found, expected))
    if ours.shape[1] == mask.shape[1]:  # what stands at padding is nobody's
        ours, theirs = ours[mask.bool()], theirs[mask.bool()]
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
    assert ours.flatten(0, -2).std(0).min() > 0.1  # tokens differ


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_that_of_transformers(family: str, lengths: str) -> None:
    found, expected = both(architecture_of(family))
    ids, mask = inputs(family, LENGTHS[lengths])
    check(found, expected, ids, mask, 1e-5)
    check(found.double(), expected.double(), ids, mask, 1e-12)


@pytest.mark.parametrize("name", KNOWN_ACTIVATIONS)
@pytest.mark.parametrize("family", ["bert", "distilbert", "clip_text_model"])
def test_an_activation_is_that_of_transformers(family: str, name: str) -> None:
    assert ACTIVATIONS.keys() == KNOWN_ACTIVATIONS.keys()
    found, expected = both(architecture_of(family, **{ACTIVATION_KEYS.get(family, "hidden_act"): name}))
    check(found, expected, *inputs(family, LENGTHS["padded"]), 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_accelerator_is_not_asked_what_a_mask_hides(family: str) -> None:
    """Shapes alone have no values that could be looked at."""
    found, _ = both(architecture_of(family))
    ids, mask = (tensor.to("meta") for tensor in inputs(family, LENGTHS["full"]))
    hidden = found.to("meta")(input_ids=ids, attention_mask=mask).last_hidden_state
    assert hidden.shape == (4, 16 if family == "siglip_text_model" else 10, 16)


def test_other_towers_are_those_of_transformers() -> None:
    own = towers.to_be_filled(load_architecture(BUNDLE))
    assert isinstance(own.text_tower, InferenceTextTower)
    other = architecture_of("bert", hidden_act="relu")
    assert inference_text_tower(other) is None
    built = towers.to_be_filled(other)
    assert type(built.text_tower).__module__.startswith("transformers.")


def test_a_model_is_loaded_and_embeds_without_transformers() -> None:
    code = f"""
import sys, zerovl
model = zerovl.load({str(BUNDLE)!r}, device="cpu")
model.encode_text(["a red box", "two stars beside a small circle"])
print(sorted({{"transformers", "scipy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
