"""The central claim, against small arrays that come with the project: `tests/assets/make_golden.py` says how.

Losses and both steps, on one rank and on two, give the gradients of the published formulas in float64.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.assets import make_golden
from tests.support.rank_groups import run_group
from tests.support.towers import RANKS, MicroInputs, decoupled_step, plain_step
from zerovl.distributed.ranks import Ranks
from zerovl.engine.precision import Precision
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.dense import dense_contrastive_loss
from zerovl.objective.mixup import Mix
from zerovl.objective.tiled import contrastive_loss

GOLDEN = dict(np.load(make_golden.FILE))
EXACT = 1e-9  # relative to the largest value
KINDS: dict[str, Any] = {
    "plain": plain_step,
    "decoupled": decoupled_step,
    "decoupled, graphs kept": partial(decoupled_step, kept_graphs=2),
}


class Image(nn.Linear):
    """tanh(W x + b)."""

    num_features = make_golden.WIDTH

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels.flatten(1)).tanh()


class Text(nn.Embedding):
    """tanh(own + mean over the tokens), for each token, as a tower of transformers gives it."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        tokens, mask = super().forward(input_ids), attention_mask[:, :, None]
        mean = (tokens * mask).sum(dim=1) / mask.sum(dim=1)
        return SimpleNamespace(last_hidden_state=(tokens + mean[:, None]).tanh())


def encoder() -> DualEncoder:
    """The tiny encoder of the script around the project's own projections, normalisation and temperature."""
    architecture = Architecture(
        image_tower="golden",
        image_options={},
        text_config={"hidden_size": make_golden.WIDTH},
        embed_dim=make_golden.DIM,
        temperature=1.0,
        learn_temperature=True,
        image_size=make_golden.SIDE,
        resize_size=make_golden.SIDE,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        max_tokens=make_golden.TOKENS,
    )
    towers = Image(3 * make_golden.SIDE**2, make_golden.WIDTH), Text(make_golden.VOCABULARY, make_golden.WIDTH)
    dual = DualEncoder(architecture, *towers).double()
    weights = {name[2:]: value for name, value in tensors().items() if name.startswith("w.")}
    dual.load_state_dict(weights)
    return dual


def tensors() -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in GOLDEN.items()}


def error(found: Tensor, name: str) -> float:
    """Largest difference from a golden array, over its largest value."""
    expected = tensors()[name]
    assert found.shape == expected.shape
    return float((found.detach() - expected).abs().max() / expected.abs().max())


def mix_of(mode: str) -> Mix:
    return Mix() if mode == "none" else Mix(mode, make_golden.WEIGHT)  # type: ignore[arg-type]


def micro_batches(ranks: Ranks) -> list[MicroInputs]:
    """Those of a rank."""
    size, local = make_golden.MICRO_BATCH, make_golden.BATCH // ranks.world_size
    names = ("in.pixels", "in.ids", "in.mask")
    starts = range(ranks.rank * local, (ranks.rank + 1) * local, size)
    return [MicroInputs(*(tensors()[name][start : start + size] for name in names)) for start in starts]


def errors_of_step(ranks: Ranks, kind: str, mode: str) -> dict[str, float]:
    """Of the loss and of every gradient that a step leaves."""
    dual = encoder()
    step = KINDS[kind](dual, ranks, Precision("float32", ranks.device))
    loss = step(micro_batches(ranks), mix_of(mode), 0)
    found = {"loss": error(loss, f"{mode}.loss")}
    for name, parameter in dual.named_parameters():
        assert parameter.grad is not None, name
        found[name] = error(parameter.grad, f"{mode}.g.{name}")
    assert len(found) == 7
    return found


@pytest.mark.parametrize("mode", make_golden.MODES)
def test_the_arrays_are_those_of_the_formulas_and_of_a_second_derivation(mode: str) -> None:
    found = make_golden.compute(GOLDEN, mode)
    make_golden.check({name: value for name, value in GOLDEN.items() if name[:2] in ("in", "w.")}, mode, found)
    for name, value in found.items():
        np.testing.assert_allclose(GOLDEN[f"{mode}.{name}"], value, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("mode", make_golden.MODES)
@pytest.mark.parametrize("loss_function", [dense_contrastive_loss, contrastive_loss], ids=["dense", "tiled"])
def test_losses_have_the_golden_gradients(loss_function: Any, mode: str) -> None:
    names = {"image_emb": f"{mode}.image_emb", "text_emb": f"{mode}.text_emb", "temperature": "w.temperature"}
    leaves = {name: tensors()[place].requires_grad_() for name, place in names.items()}
    sizes = [make_golden.MICRO_BATCH] * (make_golden.BATCH // make_golden.MICRO_BATCH)
    loss = loss_function(*leaves.values(), mix_of(mode).targets(sizes, torch.device("cpu")))
    assert error(loss, f"{mode}.loss") < EXACT
    for name, gradient in zip(leaves, torch.autograd.grad(loss, leaves.values()), strict=True):
        assert error(gradient, f"{mode}.g.{name}") < EXACT, name


def test_embeddings_are_the_golden_ones() -> None:
    dual, given = encoder(), tensors()
    assert error(dual.encode_image(given["in.pixels"]), "none.image_emb") < EXACT
    assert error(dual.encode_text(given["in.ids"], given["in.mask"]), "none.text_emb") < EXACT


@pytest.mark.parametrize("mode", make_golden.MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_steps_leave_the_golden_gradients(kind: str, mode: str) -> None:
    for name, value in errors_of_step(RANKS, kind, mode).items():
        assert value < EXACT, name


def all_errors(ranks: Ranks) -> dict[str, float]:
    return {
        f"{kind}, {mode}: {name}": value
        for kind in KINDS
        for mode in make_golden.MODES
        for name, value in errors_of_step(ranks, kind, mode).items()
    }


def test_two_ranks_leave_them_too() -> None:
    for errors in run_group(2, all_errors):
        assert len(errors) == 7 * 9
        for name, value in errors.items():
            assert value < EXACT, name
