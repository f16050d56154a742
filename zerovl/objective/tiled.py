"""The contrastive loss in tiles: same value and gradient as `dense`, memory O(B x D), any number of ranks.

Shapes: b local pairs, B = W b pairs of all ranks, D embedding width, R x C a tile of logits.

With S = I T^t / t, P its row softmax, Q its column softmax and Y the (mixed) targets,

    loss  = (sum of row and column log-sum-exps) / 2B - sum(Y * S) / B
    dL/dI = (P + Q - 2Y) T / (2 B t)        dL/dT = (P + Q - 2Y)^t I / (2 B t)
    dL/dt = -sum(I * dL/dI) / t

A rank owns the rows of its images and all B columns. The logits never leave a tile and are never
sent: ranks exchange embeddings, log-sum-exps (B each) and the gradient of the gathered columns.
Every log-sum-exp is shifted by its own maximum, so temperature 0.001 is as safe as 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zerovl.objective.collectives import Collectives, OneRank
from zerovl.objective.targets import Targets

TILE = 1024


def contrastive_loss(
    image_emb: Tensor,
    text_emb: Tensor,
    temperature: Tensor,
    targets: Targets,
    ranks: Collectives | None = None,
    tile: int = TILE,
) -> Tensor:
    """0.5 x (image-to-text + text-to-image cross-entropy) over the global batch.

    Args:
        image_emb, text_emb: the local rows, normalised, (b, D); float64, or computed in float32.
        temperature: scalar; the logits are image_emb @ text_emb.T / temperature.
        targets: who belongs to whom among the local rows.
        ranks: the other ranks; None for one rank. All ranks must have the same b.
        tile: rows and columns of logits held at once.

    Returns:
        The mean over all B pairs, the same scalar on every rank. Its gradient reaches the local rows
        through all ranks' logits (gathering with gradient); the gradients of parameters must
        therefore be summed over ranks, not averaged.
    """
    loss: Tensor = _TiledLoss.apply(image_emb, text_emb, temperature, targets, ranks or OneRank(), tile)
    return loss


class _TiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image_emb: Tensor,
        text_emb: Tensor,
        temperature: Tensor,
        targets: Targets,
        ranks: Collectives,
        tile: int,
    ) -> Tensor:
        image, text = _accumulable(image_emb), _accumulable(text_emb)  # (b, D)
        scale = 1 / temperature.to(image.dtype)
        all_text = ranks.gather(text)  # (B, D)
        batch = len(all_text)
        row_lse, column_lse = _log_sum_exps(image, all_text, scale, tile)  # (b,), (B,) over the own rows
        if ranks.world_size > 1:
            column_lse = torch.logsumexp(ranks.gather(column_lse[None]), dim=0)  # (W, B) -> (B,)
        own = slice(ranks.rank * len(image), (ranks.rank + 1) * len(image))
        positive = (image * targets.mixed(text)).sum() * scale
        loss = (0.5 * (row_lse.sum() + column_lse[own].sum()) - positive) / batch
        ctx.save_for_backward(image, text, all_text, row_lse, column_lse, temperature)
        ctx.targets, ctx.ranks, ctx.tile = targets, ranks, tile
        ctx.dtypes = image_emb.dtype, text_emb.dtype
        return ranks.sum(loss)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        image, text, all_text, row_lse, column_lse, temperature = ctx.saved_tensors
        scale = 1 / temperature.to(image.dtype)
        batch = len(all_text)
        grad_image, grad_all_text = _softmax_products(image, all_text, row_lse, column_lse, scale, ctx.tile)
        grad_text = ctx.ranks.reduce_scatter(grad_all_text)  # (B, D) -> (b, D)
        factor = upstream[0] * scale / (2 * batch)
        grad_image = (grad_image - 2 * ctx.targets.mixed(text)) * factor
        grad_text = (grad_text - 2 * ctx.targets.mixed(image)) * factor
        # Each rank contributes its own rows; the sum over ranks is the whole.
        grad_temperature = (-(image * grad_image).sum() * scale).to(temperature.dtype)
        image_dtype, text_dtype = ctx.dtypes
        return grad_image.to(image_dtype), grad_text.to(text_dtype), grad_temperature, None, None, None


def _accumulable(embeddings: Tensor) -> Tensor:
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def _log_sum_exps(image: Tensor, all_text: Tensor, scale: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """Log-sum-exps of the rows (b,) and, over these rows only, of the columns (B,)."""
    row_lse = image.new_full((len(image),), -torch.inf)
    column_lse = image.new_full((len(all_text),), -torch.inf)
    for rows in _spans(len(image), tile):
        scaled = image[rows] * scale
        for columns in _spans(len(all_text), tile):
            logits = scaled @ all_text[columns].T  # (R, C), serves both directions
            row_lse[rows] = torch.logaddexp(row_lse[rows], torch.logsumexp(logits, dim=1))
            column_lse[columns] = torch.logaddexp(column_lse[columns], torch.logsumexp(logits, dim=0))
    return row_lse, column_lse


def _softmax_products(
    image: Tensor, all_text: Tensor, row_lse: Tensor, column_lse: Tensor, scale: Tensor, tile: int
) -> tuple[Tensor, Tensor]:
    """(P + Q) T, (b, D), and (P + Q)^t I over the own rows, (B, D)."""
    grad_image, grad_all_text = torch.zeros_like(image), torch.zeros_like(all_text)
    for rows in _spans(len(image), tile):
        scaled = image[rows] * scale
        for columns in _spans(len(all_text), tile):
            logits = scaled @ all_text[columns].T  # (R, C)
            weights = torch.exp(logits - row_lse[rows, None])
            weights += logits.sub_(column_lse[columns]).exp_()
            grad_image[rows].addmm_(weights, all_text[columns])
            grad_all_text[columns].addmm_(weights.T, image[rows])
    return grad_image, grad_all_text


def _spans(length: int, tile: int) -> list[slice]:
    return [slice(start, min(start + tile, length)) for start in range(0, length, tile)]
