"""The sigmoid loss (SigLIP, arXiv 2303.15343) in tiles: each pair of the global batch is a yes or no of its own.

Shapes: b local pairs, B = W b pairs of all W ranks, D embedding width, R x C a tile of logits.

With logits Z = I T^t / t + bias and labels z = 1 for the pairs that belong together, -1 for all others,

    loss = -sum(log sigmoid(z * Z)) / B = (sum(log(1 + exp(Z))) - sum(Y * Z)) / B        Y = (z + 1) / 2

so it is a `Sweep`, with f' = sigmoid(Z); tiles, ranks and targets are those of the softmax loss. It needs no
log-sum-exps of other ranks. Cost: 4 products of 2 b B D operations and (b + B) D accumulators, as softmax has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zerovl.distributed.collectives import Collectives
from zerovl.objective.equal_pairs import EqualPairs
from zerovl.objective.over_ranks import loss_over_ranks
from zerovl.objective.targets import Targets
from zerovl.objective.tiles import CUDA_TILE, TILE, logit_tiles, weighted_sums

START_BIAS = -10.0  # arXiv 2303.15343, sec. 3.2: nearly all pairs are negatives, and the loss begins there


def sigmoid_loss(
    image_emb: Tensor,
    text_emb: Tensor,
    temperature: Tensor,
    bias: Tensor,
    targets: Targets | None = None,
    ranks: Collectives | None = None,
    sweep: SigmoidSweep | None = None,
) -> Tensor:
    """Return -sum_ij log sigmoid(z_ij Z_ij) / B over the global batch, the same scalar on every rank.

    Args:
        image_emb, text_emb: the local rows, normalised, (b, D), of any floating dtype. Float64 is computed in
            float64, all else in float32. Autocast around this call changes nothing.
        temperature, bias: scalars; the logits are image_emb @ text_emb.T / temperature + bias.
        targets: who belongs to whom among the local rows; None: row i to row i. Mixup mixes the two losses, as it does
            for softmax: weight x loss(own pairs) + (1 - weight) x loss(partners' pairs). The loss is linear in Y, so
            this is the loss of labels between -1 and 1: an own pair of a mix is a yes by its weight.
        ranks: the other ranks; None for one rank. All ranks must have the same b.
        sweep: how the logits are swept; None for float64 or float32 by the embeddings' dtype.

    Its gradient reaches the local rows through all ranks' logits (gathering with gradient); the gradients of
    parameters must therefore be summed over ranks, not averaged.
    """
    if sweep is None:
        exact = torch.promote_types(image_emb.dtype, text_emb.dtype) == torch.float64
        sweep = SigmoidSweep(torch.float64 if exact else torch.float32, CUDA_TILE if image_emb.is_cuda else TILE)
    return loss_over_ranks(sweep, image_emb, text_emb, temperature, bias, targets, ranks)


@dataclass(frozen=True)
class SigmoidSweep:
    """`Sweep` of the sigmoid loss, in plain torch on any device; two tiles are alive."""

    dtype: torch.dtype  # float32 or float64
    tile: int = TILE

    def value(
        self, image: Tensor, all_text: Tensor, scale: Tensor, bias: Tensor | None, ranks: Collectives
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As in `Sweep`: log(1 + exp(Z)) without overflow; nothing needs to be kept."""
        zero = scale.new_zeros(())
        parts = [
            torch.logaddexp(_shifted(logits, bias), zero, out=spare).sum()
            for _, _, logits, spare in logit_tiles(image, all_text, scale, self.tile)
        ]
        return torch.stack(parts).sum(), ()

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
        """As in `Sweep`."""
        sums: list[Tensor] = []

        def weights() -> Iterator[tuple[slice, slice, Tensor]]:
            for rows, columns, logits, _ in logit_tiles(image, all_text, scale, self.tile):
                twice = _shifted(logits, bias).sigmoid_().mul_(2)  # 2 f', (R, C)
                sums.append(twice.sum())
                yield rows, columns, twice

        grad_image, grad_all_text = weighted_sums(image, all_text, targets, first_column, weights())
        return grad_image, grad_all_text, torch.stack(sums).sum() - 2 * len(image)

    def positives(self, equal: EqualPairs, values: Tensor) -> Tensor:
        """As in `Sweep`: each of them is a whole yes."""
        return equal.sums(values)


def _shifted(logits: Tensor, bias: Tensor | None) -> Tensor:
    return logits if bias is None else logits.add_(bias)
