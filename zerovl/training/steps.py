"""From a local batch to gradients: `PlainStep` in one pass, `DecoupledStep` in two.

Both leave the same gradient in `.grad`, to rounding, with dropout, mixup and any number of ranks,
and sum it over ranks once a step.

Shapes: b local pairs in n micro-batches of m, D embedding width.

Dropout: the random state of a micro-batch is a pure function of (seed, step, rank, micro-batch), set
before each forward. So the second pass of `DecoupledStep` draws the masks of the first, ranks draw
different ones, and a resumed run needs no saved random state.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zerovl.model.dual_encoder import DualEncoder, l2_normalise
from zerovl.objective.mixup import Mix
from zerovl.objective.tiled import contrastive_loss
from zerovl.training.ranks import Ranks

_DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Inputs(Protocol):
    """A micro-batch; pixels are uint8, or normalised floats."""

    @property
    def images(self) -> Tensor: ...  # (m, 3, H, W)

    @property
    def input_ids(self) -> Tensor: ...  # (m, L)

    @property
    def attention_mask(self) -> Tensor: ...  # (m, L)


class Precision:
    """Autocast of the towers, and for fp16 the scale of the loss."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype = _DTYPES[name]
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def backward(self, loss: Tensor) -> None:
        scaled: Tensor = self.scaler.scale(loss)
        scaled.backward()


@dataclass(frozen=True)
class Forward:
    """One micro-batch through both towers, with its mix and its random state."""

    model: DualEncoder
    mix: Mix
    precision: Precision
    device: torch.device
    seeds: Sequence[int]  # one a micro-batch

    def __call__(self, inputs: Inputs, index: int) -> tuple[Tensor, Tensor]:
        """Normalised embeddings of images and captions, (m, D) each."""
        torch.manual_seed(self.seeds[index])
        images = inputs.images.to(self.device, non_blocking=True)
        input_ids = inputs.input_ids.to(self.device, non_blocking=True)
        attention_mask = inputs.attention_mask.to(self.device, non_blocking=True)
        pixels = self.model.normalise(images) if images.dtype == torch.uint8 else images
        with self.precision.autocast():
            image_features = self.model.image_features(self.mix.images(pixels))
            text_features = self.model.text_features(input_ids, attention_mask)
        return l2_normalise(image_features), l2_normalise(self.mix.text_features(text_features))


class Step(Protocol):
    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        """Add the gradient of this step to `.grad`; returns the loss over the global batch, a scalar."""


@dataclass(frozen=True)
class PlainStep:
    """One forward and one backward; all activations of the local batch are alive at once."""

    model: DualEncoder
    ranks: Ranks
    precision: Precision
    seed: int

    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        forward = _forward(self.model, mix, self.precision, self.ranks, self.seed, step, len(batch))
        pairs = [forward(inputs, index) for index, inputs in enumerate(batch)]
        image_emb = torch.cat([image for image, _ in pairs])  # (b, D)
        text_emb = torch.cat([text for _, text in pairs])  # (b, D)
        sizes = [len(image) for image, _ in pairs]
        loss = _loss(self.model, self.ranks, mix, image_emb, text_emb, sizes)
        self.precision.backward(loss)
        self.ranks.sum_gradients(self.model)
        return loss.detach()


@dataclass(frozen=True)
class DecoupledStep:
    """Decoupled gradient accumulation (arXiv 2112.09331, sec. 3.2).

    First pass: embeddings of all micro-batches, without graph. Then the exact gradient of the loss
    over the global batch with respect to the embeddings. Second pass: one micro-batch at a time
    again, with graph, back-propagating that gradient. Activations of one micro-batch are alive.

    Towers with batch statistics (BatchNorm) see those of a micro-batch, as in any accumulation;
    their running statistics move in the second pass only.
    """

    model: DualEncoder
    ranks: Ranks
    precision: Precision
    seed: int

    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        forward = _forward(self.model, mix, self.precision, self.ranks, self.seed, step, len(batch))
        with torch.no_grad(), _frozen_statistics(self.model):
            pairs = [forward(inputs, index) for index, inputs in enumerate(batch)]
        sizes = [len(image) for image, _ in pairs]
        image_emb = torch.cat([image for image, _ in pairs]).requires_grad_()  # (b, D)
        text_emb = torch.cat([text for _, text in pairs]).requires_grad_()  # (b, D)

        loss = _loss(self.model, self.ranks, mix, image_emb, text_emb, sizes)
        self.precision.backward(loss)  # reaches the embeddings, scaled under fp16, and the temperature
        assert image_emb.grad is not None
        assert text_emb.grad is not None
        gradients = zip(image_emb.grad.split(sizes), text_emb.grad.split(sizes), strict=True)
        for index, (inputs, (image_grad, text_grad)) in enumerate(zip(batch, gradients, strict=True)):
            image, text = forward(inputs, index)
            torch.autograd.backward([image, text], [image_grad, text_grad])
        self.ranks.sum_gradients(self.model)
        return loss.detach()


def _forward(
    model: DualEncoder, mix: Mix, precision: Precision, ranks: Ranks, seed: int, step: int, micro_batches: int
) -> Forward:
    entropy = np.random.SeedSequence([seed, step, ranks.rank])
    seeds = [int(state) for state in entropy.generate_state(micro_batches, np.uint64) >> np.uint64(1)]
    return Forward(model, mix, precision, ranks.device, seeds)


def _loss(model: DualEncoder, ranks: Ranks, mix: Mix, image_emb: Tensor, text_emb: Tensor, sizes: list[int]) -> Tensor:
    """Loss over the global batch from local embeddings (b, D), made of micro-batches of `sizes`."""
    targets = mix.targets(sizes, image_emb.device)
    return contrastive_loss(image_emb, text_emb, model.temperature, targets, ranks.collectives)


class _frozen_statistics:  # noqa: N801, a context manager in use
    """Batch-normalised layers use batch statistics but leave their running ones alone."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def __enter__(self) -> None:
        self._momenta = [(layer, layer.momentum) for layer in self._layers]
        self._counts = [layer.num_batches_tracked for layer in self._layers]
        for layer in self._layers:
            layer.momentum = 0.0
            layer.num_batches_tracked = None

    def __exit__(self, *_: object) -> None:
        for (layer, momentum), count in zip(self._momenta, self._counts, strict=True):
            layer.momentum = momentum
            layer.num_batches_tracked = count
