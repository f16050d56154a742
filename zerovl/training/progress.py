"""What a run shows: one block at the start, one progress bar, one line at the end."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from zerovl.data.manifest import Manifest
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import Params
from zerovl.training.layout import Layout
from zerovl.training.memory import peak_memory, show_size
from zerovl.training.options import options_without_effect
from zerovl.training.ranks import Ranks


def start_block(
    params: Params,
    manifest: Manifest,
    model: DualEncoder,
    ranks: Ranks,
    steps: int,
    layout: Layout,
    decision: str,
    fingerprint: str,
) -> str:
    """What will happen and why: the text shown before the first step."""
    train = params.train
    sizes = {name: manifest.pairs(name, "train") for name in manifest.sources("train")}
    local = train.batch_size // ranks.world_size
    total = sum(parameter.numel() for parameter in model.parameters())
    device = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "CPU"
    epoch_steps = max(1, sum(sizes.values()) // train.batch_size)
    text = model.architecture.text_config["model_type"]
    lines = [
        ("run", f"{fingerprint}: {decision}"),
        ("steps", f"{steps} of {train.batch_size} pairs, about {epoch_steps} an epoch, {train.epochs:g} epochs"),
        (
            "batch",
            f"{ranks.world_size} ranks ({device}, {train.precision}) x {local} pairs, {train.step}: {layout.said}",
        ),
        ("sources", f"{', '.join(f'{name} {pairs}' for name, pairs in sizes.items())} pairs; {train.sampling}"),
        (
            "model",
            f"{model.architecture.image_tower} + {text}, {total / 1e6:.1f}M parameters",
        ),
        ("memory", str(layout.memory)),
    ]
    notes = [*without_effect(params), *options_without_effect(train, model, ranks), *batch_statistics(params, model)]
    lines += [("note", text) for text in notes]
    return "\n".join(f"  {name:<8} {text}" for name, text in lines)


def without_effect(params: Params) -> list[str]:
    """Settings that do nothing in the chosen mode: said, not ignored."""
    train = params.train
    notes = []
    if train.step == "plain":
        notes.append(f"train.micro_batch {train.micro_batch} has no effect with train.step plain")
        if train.kept_graphs:
            notes.append(f"train.kept_graphs {train.kept_graphs} has no effect with train.step plain, which keeps all")
        if train.activation_budget != "none":
            notes.append(f"train.activation_budget {train.activation_budget} has no effect with train.step plain")
    if train.mixup == "none":
        notes.append(f"train.mixup_alpha {train.mixup_alpha:g} has no effect with train.mixup none")
    if train.init_from and params.prepare.tokenizer_vocab:
        notes.append(f"the tokenizer of prepare has no effect: that of train.init_from {train.init_from} is used")
    if train.valid_checks == 0:
        notes.append(f"train.valid_pairs {train.valid_pairs} has no effect with train.valid_checks 0")
    return notes


def batch_statistics(params: Params, model: nn.Module) -> list[str]:
    """Batch-normalised towers under debiased sampling: trained on one source a batch, used with the mean of all."""
    layers = any(isinstance(module, _BatchNorm) for module in model.modules())
    if params.train.sampling != "debiased" or "image" in params.train.freeze or not layers:
        return []
    return [
        "the image tower has BatchNorm: with train.sampling debiased each batch is normalised by its own source, "
        "evaluation by the running mean of all, which costs sources that look different; choose a tower with "
        "LayerNorm or GroupNorm"
    ]


class Progress:
    """A bar on rank 0 with loss, learning rate, pairs/s, memory and time left; nothing on other ranks."""

    def __init__(self, ranks: Ranks, steps: int, start_step: int, batch_size: int) -> None:
        self._device = ranks.device
        self._batch_size = batch_size
        self._since = time.perf_counter()
        self.bar = tqdm(
            total=steps,
            initial=start_step,
            desc="train",
            unit="step",
            file=sys.stderr,
            disable=not ranks.is_first,
            mininterval=1.0,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def step(self, loss: float, lr: float) -> float:
        """Count one step; returns its pairs per second."""
        now = time.perf_counter()
        rate = self._batch_size / (now - self._since)
        self._since = now
        fields = {"loss": f"{loss:.3f}", "lr": f"{lr:.1e}", "pairs/s": f"{rate:.0f}"}
        fields["mem"] = show_size(peak_memory(self._device)).replace(" ", "")
        self.bar.set_postfix(fields, refresh=False)
        self.bar.update()
        return rate

    def pause(self) -> None:
        """Restart the clock after something that is not a step."""
        self._since = time.perf_counter()

    def say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)
