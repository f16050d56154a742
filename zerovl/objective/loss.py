"""The loss as the rest of the program sees it: what it computes, with which scalars, at what cost.

Shapes: b local pairs, B = W b pairs of all W ranks, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from zerovl.distributed.collectives import Collectives
from zerovl.objective.sigmoid import START_BIAS, sigmoid_loss
from zerovl.objective.targets import Targets
from zerovl.objective.tiled import contrastive_loss
from zerovl.objective.tiles import CUDA_TILE, TILE

_FLOAT = 4  # bytes: embeddings and their gradients are float32


class Loss(Protocol):
    """A loss of a global batch whose rows are spread over ranks; it holds no tensors of its own."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the model's scalars that the loss reads, as in `DualEncoder.temperature`."""

    def __call__(
        self,
        image_emb: Tensor,
        text_emb: Tensor,
        parameters: Mapping[str, Tensor],
        targets: Targets,
        ranks: Collectives,
    ) -> Tensor:
        """Return the loss over the global batch, the same scalar on every rank.

        Args:
            image_emb, text_emb: normalised local rows, (b, D).
            parameters: the scalars by the names of `parameters`.
            targets: who belongs to whom among the local rows.
            ranks: the other ranks; all have the same b.

        Its gradient reaches the local rows through all ranks' logits, so gradients of weights are summed over
        ranks and not averaged.
        """

    def operations(self, batch: int, width: int) -> float:
        """Return the floating-point operations a pair of forward and backward, for B = `batch` and D = `width`."""

    def memory(self, local: int, batch: int, width: int, kind: str) -> int:
        """Return the bytes on a rank beyond the local embeddings and their gradients; `kind` is "cpu" or "cuda"."""


@dataclass(frozen=True)
class SoftmaxLoss:
    """The paper's loss: 0.5 x (image-to-text + text-to-image cross-entropy), in tiles (see `tiled`)."""

    parameters: tuple[str, ...] = ("temperature",)

    def __call__(
        self,
        image_emb: Tensor,
        text_emb: Tensor,
        parameters: Mapping[str, Tensor],
        targets: Targets,
        ranks: Collectives,
    ) -> Tensor:
        return contrastive_loss(image_emb, text_emb, parameters["temperature"], targets, ranks)

    def operations(self, batch: int, width: int) -> float:
        """Four products of 2 b B D operations, each shared by b pairs."""
        return 8.0 * batch * width

    def memory(self, local: int, batch: int, width: int, kind: str) -> int:
        """Gathered captions, the gradients that the tiles sum up, and two tiles."""
        return _tiled_memory(local, batch, width, kind)


@dataclass(frozen=True)
class SigmoidLoss:
    """SigLIP's loss (arXiv 2303.15343): every pair of the batch is a yes or no of its own, in tiles (see `sigmoid`)."""

    parameters: tuple[str, ...] = ("temperature", "logit_bias")

    def __call__(
        self,
        image_emb: Tensor,
        text_emb: Tensor,
        parameters: Mapping[str, Tensor],
        targets: Targets,
        ranks: Collectives,
    ) -> Tensor:
        return sigmoid_loss(image_emb, text_emb, parameters["temperature"], parameters["logit_bias"], targets, ranks)

    def operations(self, batch: int, width: int) -> float:
        """Four products of 2 b B D operations, each shared by b pairs, as softmax has."""
        return 8.0 * batch * width

    def memory(self, local: int, batch: int, width: int, kind: str) -> int:
        """Gathered captions, the gradients that the tiles sum up, and two tiles."""
        return _tiled_memory(local, batch, width, kind)


def _tiled_memory(local: int, batch: int, width: int, kind: str) -> int:
    tile = TILE if kind == "cpu" else CUDA_TILE
    gathered = batch * width if batch > local else 0
    gradients = (local + batch) * width
    return _FLOAT * (gathered + gradients + 2 * min(tile, local) * min(tile, batch))


def start_bias(loss: Loss) -> float | None:
    """Return the start value of the model's `logit_bias`; None where the loss reads none, and the model has none."""
    return START_BIAS if "logit_bias" in loss.parameters else None


LOSSES: Mapping[str, Loss] = {"softmax": SoftmaxLoss(), "sigmoid": SigmoidLoss()}  # by the names of train.loss
