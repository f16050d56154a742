"""AdamW and the learning-rate schedule of the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from zerovl.engine.parameter_groups import learned_parameters
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import TrainParams


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then half a cosine down to `final_fraction` of the peak; lr in effect a step."""

    peak: float
    steps: int
    warmup_steps: int
    final_fraction: float

    def lr(self, step: int) -> float:
        """Learning rate of 0-based `step`: 0 in step 0 of a warm-up, the peak in the first step after it.

        The final rate is that of the step after the last one, as in the paper's code.
        """
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.peak * (self.final_fraction + (1 - self.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_schedule(params: TrainParams, steps: int) -> Schedule:
    """Return the schedule of `train` over so many steps, of which one at least is after the warm-up."""
    warmup_steps = min(round(params.warmup_fraction * steps), steps - 1)
    return Schedule(params.lr, steps, warmup_steps, params.final_lr_fraction)


def make_optimiser(model: DualEncoder, params: TrainParams) -> torch.optim.AdamW:
    """AdamW over everything that learns, in groups of one share of the learning rate (`lr_scale`) and one weight decay.

    The paper's settings make one group, or two where the model is sharded. Checkpoints know parameters by their
    names: how they are grouped here is nowhere stored. Raises `ZeroVLError` as `learned_parameters` does.
    """
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for item in learned_parameters(model, params):
        # Fused AdamW takes sharded and plain parameters, but not in one call: a group is a call.
        kind = not isinstance(item.parameter, DTensor), item.lr_scale, item.weight_decay
        groups.setdefault(kind, []).append(item.parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr_scale": scale, "weight_decay": decay}
            for (_, scale, decay), parameters in sorted(groups.items(), key=lambda group: group[0])
        ],
        lr=params.lr,
        betas=(params.beta1, params.beta2),
        eps=params.eps,
        weight_decay=params.weight_decay,
        fused=True,
    )


def set_lr(optimiser: torch.optim.AdamW, lr: float) -> None:
    """Give each group its share of a learning rate, all of it where none is said."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
