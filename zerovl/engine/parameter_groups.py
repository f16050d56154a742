"""What learns, at which share of the learning rate and with which weight decay: the settings of `train.fine_tuning`.

Layer decay as in arXiv 2003.10555, sec. 3.1, and arXiv 2106.08254: what is behind a tower's blocks has the tower's
own share, the last block `layer_decay` times that, and each one below it `layer_decay` times that of the next.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from zerovl.errors import ZeroVLError
from zerovl.model.blocks import blocks, layers
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import TrainParams

REST = "projections and temperature"
_PARTS = ("image tower", "text tower", REST)


@dataclass(frozen=True)
class Learned:
    """A parameter that learns, and how."""

    parameter: nn.Parameter
    part: str  # image tower, text tower or REST
    lr_scale: float  # share of the schedule's learning rate
    weight_decay: float


def learned_parameters(model: DualEncoder, train: TrainParams) -> list[Learned]:
    """Return all that learns, in the order of the model's parameters; raises `ZeroVLError` for a tower without blocks.

    Call it with the model frozen and sharded as training has it.
    """
    scales = _lr_scales(model, train)
    rest = train.fine_tuning.projection_lr_scale
    scales["temperature"] = rest * train.fine_tuning.temperature_lr_scale
    return [
        Learned(parameter, _part(name), scales.get(name, rest), _decay(parameter, train))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]


def describe(learned: list[Learned], lr: float) -> list[str]:
    """Return a line for each part of the model: how many parameters learn, at which peak rates, with which decay."""
    lines = []
    for part in sorted({item.part for item in learned}, key=_PARTS.index):
        mine = [item for item in learned if item.part == part]
        rates = sorted({lr * item.lr_scale for item in mine})
        said = f"{rates[0]:.3g}" if len(rates) == 1 else f"{rates[0]:.3g} to {rates[-1]:.3g}"
        sizes: dict[float, int] = {}
        for item in mine:
            sizes[item.weight_decay] = sizes.get(item.weight_decay, 0) + item.parameter.numel()
        decays = ", ".join(f"weight decay {decay:g} on {size:,}" for decay, size in sorted(sizes.items(), reverse=True))
        lines.append(f"{part}: {sum(sizes.values()):,} parameters, lr {said}, {decays}")
    return lines


def _lr_scales(model: DualEncoder, train: TrainParams) -> dict[str, float]:
    """Shares of the towers' parameters by name."""
    tuning = train.fine_tuning
    scales = {}
    for side, scale in (("image", tuning.image_lr_scale), ("text", tuning.text_lr_scale)):
        tower: nn.Module = getattr(model, f"{side}_tower")
        top = len(blocks(tower)) + 1
        if tuning.layer_decay < 1 and top == 1 and side not in train.freeze:
            raise ZeroVLError(
                f"train.fine_tuning.layer_decay: {tuning.layer_decay:g}, and the {side} tower has no list of blocks to "
                "tell its layers by; set it to 1.0, or lower the whole tower's rate by "
                f"train.fine_tuning.{side}_lr_scale"
            )
        for name, layer in layers(tower).items():
            scales[f"{side}_tower.{name}"] = scale * tuning.layer_decay ** (top - layer)
    return scales


def _decay(parameter: nn.Parameter, train: TrainParams) -> float:
    spared = parameter.ndim <= 1 and not train.fine_tuning.decay_biases  # biases, norms, temperature
    return 0.0 if spared else train.weight_decay


def _part(name: str) -> str:
    return next((f"{side} tower" for side in ("image", "text") if name.startswith(f"{side}_tower.")), REST)
