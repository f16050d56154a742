"""Dropout between the towers and the projections."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.support.towers import CPU, RANKS, batch, gradients, model, step_context
from zerovl.engine.forward import FeatureDropout, Hidden
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep, PlainStep, StepContext
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix

DROPOUT = FeatureDropout(image=0.5, text=0.25)


def context(dual: DualEncoder, dropout: FeatureDropout = DROPOUT, seed: int = 0) -> StepContext:
    return replace(step_context(dual, RANKS, Precision("float32", CPU), seed), dropout=dropout)


@pytest.mark.parametrize("side", ["none", "image", "text"])
@pytest.mark.parametrize("kept_graphs", [0, 1, 4])
def test_the_decoupled_step_has_the_masks_of_the_plain_one(side: str, kept_graphs: int) -> None:
    mix = Mix(side, 0.3)  # type: ignore[arg-type]
    plain, decoupled = (model().double().train() for _ in range(2))
    expected = PlainStep(context(plain))(batch(), mix, 7)
    found = DecoupledStep(context(decoupled), kept_graphs)(batch(), mix, 7)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(decoupled)[name], gradient, rtol=1e-9, atol=1e-12)


def test_a_frozen_tower_is_dropped_alike_in_both_passes() -> None:
    plain, decoupled = (model().double().train() for _ in range(2))
    for dual in (plain, decoupled):
        dual.freeze("image")
    PlainStep(context(plain))(batch(), Mix(), 7)
    DecoupledStep(context(decoupled))(batch(), Mix(), 7)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(decoupled)[name], gradient, rtol=1e-9, atol=1e-12)


def test_without_it_nothing_changes() -> None:
    before, after = (model().train() for _ in range(2))
    expected = DecoupledStep(step_context(before, RANKS, Precision("float32", CPU)))(batch(), Mix(), 7)
    found = DecoupledStep(context(after, FeatureDropout()))(batch(), Mix(), 7)
    assert float(found) == float(expected)


def test_its_share_is_zeroed_and_the_mean_stays() -> None:
    hidden = DROPOUT(Hidden(torch.ones(200, 100), torch.ones(200, 100)), (1, 2))
    for features, share in ((hidden.image, 0.5), (hidden.text, 0.25)):
        assert float((features == 0).float().mean()) == pytest.approx(share, abs=0.02)
        assert float(features.mean()) == pytest.approx(1.0, abs=0.03)
    assert not torch.equal(hidden.image == 0, hidden.text == 0)


def test_masks_differ_between_steps() -> None:
    step = DecoupledStep(context(model().eval()))  # no dropout in the towers themselves
    assert len({float(step(batch(), Mix(), number)) for number in (0, 1, 1)}) == 2
