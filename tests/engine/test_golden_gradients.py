"""Both steps against the gradients of the original implementation, on 1, 2 and 4 ranks, in float64."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.rank_groups import run_group
from tests.support.towers import MicroInputs, decoupled_step, plain_step
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.precision import Precision
from zerovl.interop import original
from zerovl.model import bundle
from zerovl.objective.mixup import Mix

BATCH, MICRO_BATCH, SIDE = 16, 4, 64
KINDS: dict[str, Any] = {
    "plain": plain_step,
    "decoupled": decoupled_step,
    "decoupled, graphs kept": partial(decoupled_step, kept_graphs=2),
}


def gradients(ranks: Ranks, step_name: str, mode: str, parity: Path) -> tuple[float, float, float]:
    """Loss, and the largest relative error over all gradients; also of the golden loss."""
    golden = np.load(parity / f"dga_{mode}.npz")
    tensors = {key: torch.from_numpy(np.asarray(golden[key])) for key in golden.files}
    weights = original.rename({k[2:]: t.double() for k, t in tensors.items() if k.startswith("w.")}, "golden")
    expected = original.rename({k[2:]: t.double() for k, t in tensors.items() if k.startswith("g.")}, "golden")
    model = original.build(weights, "test_vit", str(parity / "bert"), image_size=SIDE).double()
    bundle.load_weights(model, weights, "golden")
    model.eval()  # dropout off
    images, input_ids, mask = tensors["in.image"].double(), tensors["in.input_ids"], tensors["in.attention_mask"]
    local = BATCH // ranks.world_size
    starts = range(ranks.rank * local, (ranks.rank + 1) * local, MICRO_BATCH)
    parts = [slice(start, start + MICRO_BATCH) for start in starts]
    batch = [MicroInputs(images[part], input_ids[part], mask[part]) for part in parts]
    step = KINDS[step_name](model, ranks, Precision("float32", ranks.device), seed=0)
    mix = Mix() if mode == "none" else Mix(mode, 0.3)  # type: ignore[arg-type]
    loss = float(step(batch, mix, 0))
    errors = []
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        scale = max(float(expected[name].abs().max()), 1e-12)
        errors.append(float((parameter.grad - expected[name]).abs().max()) / scale)
    assert len(errors) == len(expected)
    return loss, float(golden["loss"]), max(errors)


@pytest.mark.parametrize("step_name", list(KINDS))
@pytest.mark.parametrize("mode", ["none", "image", "text"])
def test_one_process(parity: Path, step_name: str, mode: str) -> None:
    loss, golden_loss, error = gradients(Ranks(0, 1, torch.device("cpu"), OneRank()), step_name, mode, parity)
    assert loss == pytest.approx(golden_loss, rel=1e-12)
    assert error < 1e-6


def all_cases(ranks: Ranks, parity: Path) -> list[tuple[float, float, float]]:
    return [gradients(ranks, step, mode, parity) for step in KINDS for mode in ("none", "image", "text")]


@pytest.mark.parametrize("world_size", [2, 4])
def test_over_ranks(parity: Path, world_size: int) -> None:
    for results in run_group(world_size, all_cases, parity):
        for loss, golden_loss, error in results:
            assert loss == pytest.approx(golden_loss, rel=1e-12)
            assert error < 1e-6
