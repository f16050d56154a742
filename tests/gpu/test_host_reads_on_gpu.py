"""A step queues its work and does not wait for the GPU: torch refuses every hidden read of a result in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.device_runs import StepInputs, make_trainer, precision_of, ragged_batch, run_trainer
from tests.support.towers import MicroInputs, batch, decoupled_step, model, plain_step
from zerovl.data.batches.loader import MicroBatch
from zerovl.data.batches.workers import OrderedLoader
from zerovl.distributed.ranks import Ranks
from zerovl.engine.forward import Inputs
from zerovl.engine.steps import Step
from zerovl.objective.mixup import Mix

pytestmark = pytest.mark.gpu


@dataclass(frozen=True)
class WithoutReads:
    """A step in which a read of the GPU's results is an error; the first one may warm up."""

    inner: Step

    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        if step == 0:
            return self.inner(batch, mix, step)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return self.inner(batch, mix, step)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", ["plain", "decoupled", "kept"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_step_reads_nothing_back(
    kind: str, precision: str, device: torch.device, one_rank: Ranks, tmp_path: Path
) -> None:
    """Called as the trainer calls it: page-locked batches of other lengths each time, mixed images and texts."""
    dual, arithmetic = model().to(device), precision_of(precision, device)
    steps = {
        "plain": plain_step(dual, one_rank, arithmetic),
        "decoupled": decoupled_step(dual, one_rank, arithmetic),
        "kept": decoupled_step(dual, one_rank, arithmetic, kept_graphs=2),
    }
    trainer = make_trainer(dual, WithoutReads(steps[kind]), arithmetic, one_rank, tmp_path, steps=6)
    mixed = {trainer.mixup.draw(number).side for number in range(1, 6)}
    assert mixed == {"image", "text"}
    lengths = [(8, 5, 7, 3), (4, 4, 6, 2), (8, 8, 8, 8), (3, 7, 2, 5), (6, 5, 4, 3), (8, 2, 7, 4)]
    batches = [StepInputs(number, ragged_batch(device, each)) for number, each in enumerate(lengths)]
    outcome, rows = run_trainer(trainer, batches)
    assert outcome.state == "finished"
    assert len(rows) == 6


def test_torch_refuses_a_read(device: torch.device) -> None:
    """Otherwise the test above would show nothing."""
    step = WithoutReads(lambda *_: torch.ones(1, device=device).nonzero())
    with pytest.raises(RuntimeError, match="synchroniz"):
        step([], Mix(), 1)


def test_batches_arrive_page_locked(device: torch.device) -> None:
    part: MicroInputs = batch(1)[0]
    micro_batch = MicroBatch(part.images, part.input_ids, part.attention_mask, ["a"], "source")
    with OrderedLoader([micro_batch], workers=0, prefetch=1, pinned=True, lower="") as loader:  # type: ignore[arg-type]
        found = next(loader)
    assert all(tensor.is_pinned() for tensor in (found.images, found.input_ids, found.attention_mask))
    assert torch.equal(found.images, micro_batch.images)
    assert (found.keys, found.source) == (["a"], "source")
