"""Steps and runs of small towers on any device: batches as the loader leaves them, and the trainer around a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.towers import MicroInputs, batch, settings
from zerovl.distributed.ranks import Ranks
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.metrics_log import MetricsLog
from zerovl.engine.optimiser import make_optimiser, make_schedule
from zerovl.engine.precision import Precision
from zerovl.engine.progress import Progress
from zerovl.engine.state import TrainingState
from zerovl.engine.steps import Step
from zerovl.engine.trainer import Cadence, Outcome, StopRequest, Trainer
from zerovl.files import read_json_lines
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mixup

SCALE = 256.0  # of the loss under fp16: gradients of these towers neither overflow nor vanish
Row = dict[str, Any]


@dataclass(frozen=True)
class StepInputs:
    """The local batch of a step."""

    step: int
    micro_batches: list[MicroInputs]
    source: str = "drawn"


def page_locked(parts: list[MicroInputs], device: torch.device) -> list[MicroInputs]:
    """Return the same micro-batches in page-locked memory where they go to a GPU, as the loader gives them."""
    if device.type == "cuda":
        for part in parts:
            part.images, part.input_ids, part.attention_mask = (
                tensor.pin_memory() for tensor in (part.images, part.input_ids, part.attention_mask)
            )
    return parts


def ragged_batch(device: torch.device, lengths: Iterable[int] = (8, 5, 7, 3)) -> list[MicroInputs]:
    """A micro-batch of 6 pairs for each length: one caption has it, the others are up to two tokens shorter."""
    lengths = list(lengths)
    parts = batch(len(lengths))
    for part, length in zip(parts, lengths, strict=True):
        part.input_ids = part.input_ids[:, :length].contiguous()
        own = length - torch.arange(len(part.input_ids)) % min(3, length)  # (m,)
        part.attention_mask = (torch.arange(length) < own[:, None]).long()
    return page_locked(parts, device)


def precision_of(name: str, device: torch.device, scale: float = SCALE) -> Precision:
    """A precision whose loss scale under fp16 begins low."""
    precision = Precision(name, device)
    precision.scaler = torch.amp.GradScaler(device.type, init_scale=scale, enabled=name == "fp16")
    return precision


@contextmanager
def projected(dual: DualEncoder) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Give what the projections of images and captions returned in the block, (m, D) a call, in the order of calls."""
    seen: tuple[list[Tensor], list[Tensor]] = ([], [])
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output, calls=calls: calls.append(output.detach().clone()))
        for layer, calls in zip((dual.image_projection, dual.text_projection), seen, strict=True)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def gradient_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative error of a parameter's gradient, by Euclidean norms.

    Some gradients are zero but for rounding (the bias of attention's keys): below a thousandth of the norm of all of
    them, an error is one of that thousandth.
    """
    assert found.keys() == expected.keys()
    whole = torch.stack([tensor.double().norm() for tensor in expected.values()]).norm()
    errors = [
        (found[name].double() - tensor.double()).norm() / tensor.double().norm().clamp(min=1e-3 * float(whole))
        for name, tensor in expected.items()
    ]
    return float(torch.stack(errors).max())


def flat(model: nn.Module) -> Tensor:
    """Return all weights in one vector, a copy."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def make_trainer(
    dual: DualEncoder,
    step: Step,
    precision: Precision,
    ranks: Ranks,
    folder: Path,
    *,
    steps: int,
    clip_norm: float = 0.0,
) -> Trainer:
    """The trainer of a run, with a checkpoint after its last step alone."""
    train, _ = settings(lr=1e-3)
    return Trainer(
        state=TrainingState(dual, make_optimiser(dual, train), precision.scaler),
        step=step,
        schedule=make_schedule(train, steps),
        mixup=Mixup("coin", 0.1, seed=0),
        precision=precision,
        ranks=ranks,
        checkpoints=Checkpoints(folder / "checkpoints", 2, 0, ranks),
        cadence=Cadence(10**6, 10**6),
        clip_norm=clip_norm,
        evaluation=None,
        stop=StopRequest(),
        log=MetricsLog(folder, 0),
    )


def run_trainer(trainer: Trainer, batches: Iterable[StepInputs]) -> tuple[Outcome, list[Row]]:
    """Train over `batches`; how it ended, and the rows of the log by step."""
    steps = trainer.schedule.steps
    with Progress(trainer.ranks, steps, 0, 24) as progress:
        outcome = trainer.train(batches, 0, progress)
    assert trainer.log is not None
    trainer.log.close()
    return outcome, read_json_lines(trainer.log.path)
