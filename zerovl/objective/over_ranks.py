"""What the losses of all pairs have in common: rows spread over ranks, the targets' part, and the gradient's way back.

Shapes: b local pairs, B = W b pairs of all W ranks, D embedding width.

With logits Z = I T^t / t + bias and the (mixed) targets Y, both losses are

    loss = (f(Z) - sum(Y * Z)) / B        dloss/dZ = (f'(Z) - Y) / B

where f sums over all logits: half of the row and column log-sum-exps for softmax, log(1 + exp(Z)) for sigmoid. A
`Sweep` computes f and (2 f' - 2Y) times the embeddings; the rest is here.

    dL/dt = -sum(I * dL/dI) / t           dL/dbias = sum(f' - Y) / B

A sweep knows of the own pairs and their mixup partners; what equal pairs add to Y is sparse, and added here.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from zerovl.distributed.collectives import Collectives, OneRank
from zerovl.objective.equal_pairs import EqualPairs, extra_targets
from zerovl.objective.targets import Targets
from zerovl.objective.tiles import spans

_ROWS = 8192  # of embeddings taken to float32 at once where only a sum is wanted


class Sweep(Protocol):
    """One loss over the logits Z (b, B) of a rank, which are never held whole."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which `image` and `all_text` are to be given."""

    def value(
        self, image: Tensor, all_text: Tensor, scale: Tensor, bias: Tensor | None, ranks: Collectives
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the local part of f(Z), a scalar, and what `gradients` wants kept."""

    def gradients(
        self,
        image: Tensor,
        all_text: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        kept: tuple[Tensor, ...],
        targets: Targets,
        first_column: int,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return (2f' - 2Y) @ all_text, (b, D), its transpose @ image, (B, D), and sum(2f' - 2Y) where there is a bias.

        Row i belongs to column first_column + i, and to its partner's.
        """

    def positives(self, equal: EqualPairs, values: Tensor) -> Tensor:
        """Return what pairs that belong together give each other of `values`, (k, D); see `equal_pairs`."""


def loss_over_ranks(
    sweep: Sweep,
    image_emb: Tensor,
    text_emb: Tensor,
    temperature: Tensor,
    bias: Tensor | None,
    targets: Targets | None,
    ranks: Collectives | None,
) -> Tensor:
    """Return the loss over the global batch, the same scalar on every rank.

    Args:
        sweep: which loss.
        image_emb, text_emb: the local rows, normalised, (b, D).
        temperature, bias: scalars; the logits are image_emb @ text_emb.T / temperature + bias.
        targets: who belongs to whom among the local rows; None: row i to row i.
        ranks: the other ranks; None for one rank. All ranks must have the same b.

    Its gradient reaches the local rows through all ranks' logits, so gradients of parameters are summed over ranks.
    """
    loss: Tensor = _LossOverRanks.apply(
        image_emb, text_emb, temperature, bias, targets or Targets(), ranks or OneRank(), sweep
    )
    return loss


class _LossOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image_emb: Tensor,
        text_emb: Tensor,
        temperature: Tensor,
        bias: Tensor | None,
        targets: Targets,
        ranks: Collectives,
        sweep: Sweep,
    ) -> Tensor:
        with torch.autocast(image_emb.device.type, enabled=False):
            image, text = image_emb.to(sweep.dtype), text_emb.to(sweep.dtype)  # (b, D)
            scale = 1 / temperature.to(_sum_dtype(image))
            offset = None if bias is None else bias.to(scale.dtype)
            all_text = ranks.gather(text)  # (B, D)
            total, kept = sweep.value(image, all_text, scale, offset, ranks)
            positive = targets.weight * _dot(image, text)
            if targets.partner is not None:
                positive = positive + (1 - targets.weight) * _dot(image, text, targets.partner)
            extra = extra_targets(targets, ranks)
            if extra is not None:
                positive = positive + extra.product(image, all_text, sweep.positives)
            total = total - positive * scale
            if offset is not None:
                mass = len(image) + (extra.mass(sweep.positives).to(offset.dtype) if extra is not None else 0.0)
                total = total - offset * mass
            ctx.save_for_backward(image, all_text, temperature, bias, *kept)
            ctx.targets, ctx.ranks, ctx.sweep, ctx.extra = targets, ranks, sweep, extra
            ctx.dtypes = image_emb.dtype, text_emb.dtype
            return ranks.sum(total / len(all_text))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        image, all_text, temperature, bias, *kept = ctx.saved_tensors
        with torch.autocast(image.device.type, enabled=False):
            scale = 1 / temperature.to(_sum_dtype(image))
            offset = None if bias is None else bias.to(scale.dtype)
            first_column = own_columns(image, ctx.ranks).start
            grad_image, grad_all_text, grad_bias = ctx.sweep.gradients(
                image, all_text, scale, offset, tuple(kept), ctx.targets, first_column
            )
            if ctx.extra is not None:
                ctx.extra.subtract(2.0, grad_image, grad_all_text, (image, all_text), ctx.sweep.positives)
            grad_text = ctx.ranks.reduce_scatter(grad_all_text)  # (B, D) -> (b, D)
            factor = upstream[0] * scale / (2 * len(all_text))
            grad_image.mul_(factor)
            grad_text.mul_(factor)
            # Each rank contributes its own rows; the sum over ranks is the whole.
            grad_temperature = (-_dot(image, grad_image) * scale).to(temperature.dtype)
            if grad_bias is not None:
                if ctx.extra is not None:
                    grad_bias = grad_bias - 2 * ctx.extra.mass(ctx.sweep.positives).to(grad_bias.dtype)
                grad_bias = (upstream[0] * grad_bias / (2 * len(all_text))).to(bias.dtype)
            image_dtype, text_dtype = ctx.dtypes
            return grad_image.to(image_dtype), grad_text.to(text_dtype), grad_temperature, grad_bias, None, None, None


def own_columns(image: Tensor, ranks: Collectives) -> slice:
    """Return which of the B columns belong to the local rows (b, D)."""
    return slice(ranks.rank * len(image), (ranks.rank + 1) * len(image))


def _sum_dtype(embeddings: Tensor) -> torch.dtype:
    return torch.float64 if embeddings.dtype == torch.float64 else torch.float32


def _dot(left: Tensor, right: Tensor, order: Tensor | None = None) -> Tensor:
    """sum(left * right[order]) of two (b, D), in float32 at least, without a copy of either."""
    dtype = _sum_dtype(left)
    parts = []
    for rows in spans(len(left), _ROWS):
        other = right[rows] if order is None else right[order[rows]]
        parts.append((left[rows].to(dtype) * other.to(dtype)).sum())
    return torch.stack(parts).sum()
