"""The contrastive loss in tiles: same value and gradient as `dense`, memory O(B x D), any number of ranks.

Shapes: b local pairs, B = W b pairs of all W ranks, D embedding width.

With S = I T^t / t, P its row softmax, Q its column softmax and Y the (mixed) targets,

    loss  = (sum of row and column log-sum-exps) / 2B - sum(Y * S) / B
    dL/dI = (P + Q - 2Y) T / (2 B t)        dL/dT = (P + Q - 2Y)^t I / (2 B t)
    dL/dt = -sum(I * dL/dI) / t

A rank owns the rows of its images and all B columns. The logits never leave a tile (`tiles`) and are
never sent. Wherever logits may be large, every log-sum-exp is shifted by its own maximum, so temperature
0.001 is as safe as 1.

Cost on a rank, forward and backward:

- 4 matrix products of 2 b B D operations: the logits in each direction of time, and one for each
  gradient. Dense needs 3 with one matrix of logits, 6 with open_clip's two, and memory for them.
- Memory beyond the embeddings: (b + B) D accumulators, b + 2 B log-sum-exps, and a few tiles.
- On the wire, none with one rank; else each rank receives the other ranks' texts, (B - b) D elements of
  the dtype computed in (4 bytes; 2 for 16-bit embeddings on CUDA), log-sum-exps of its columns from each,
  (W - 1) B x 4 bytes, and the sums of its own slice of dL/dT, (B - b) D x 4 bytes, beside two scalars. At B = 16384,
  D = 512, W = 8 in float32: 29 MB each way and 0.5 MB of log-sum-exps, instead of 235 MB for its share of S.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from zerovl.distributed.collectives import Collectives
from zerovl.objective.equal_pairs import EqualPairs
from zerovl.objective.over_ranks import loss_over_ranks, own_columns
from zerovl.objective.targets import Targets
from zerovl.objective.tiles import CUDA_TILE, Tiles, TorchTiles


def contrastive_loss(
    image_emb: Tensor,
    text_emb: Tensor,
    temperature: Tensor,
    targets: Targets | None = None,
    ranks: Collectives | None = None,
    tiles: Tiles | None = None,
) -> Tensor:
    """Return 0.5 x (image-to-text + text-to-image cross-entropy) over the global batch.

    Args:
        image_emb, text_emb: the local rows, normalised, (b, D), of any floating dtype. Float64 is computed in
            float64; 16-bit rows on CUDA are multiplied as they are and summed in float32; all else is float32.
            Autocast around this call changes nothing.
        temperature: scalar; the logits are image_emb @ text_emb.T / temperature.
        targets: who belongs to whom among the local rows; None: row i of the pictures to row i of the captions.
        ranks: the other ranks; None for one rank. All ranks must have the same b.
        tiles: how the logits are swept; None for the fastest way (`fastest_tiles`).

    Returns:
        The mean over all B pairs, the same scalar on every rank. Its gradient reaches the local rows
        through all ranks' logits (gathering with gradient); the gradients of parameters must
        therefore be summed over ranks, not averaged.
    """
    sweep = SoftmaxSweep(tiles or fastest_tiles(image_emb, text_emb))
    return loss_over_ranks(sweep, image_emb, text_emb, temperature, None, targets, ranks)


def fastest_tiles(image_emb: Tensor, text_emb: Tensor) -> Tiles:
    """Triton for what it is the fastest way for (see `triton_tiles.supports`), torch for the rest."""
    dtype = torch.promote_types(image_emb.dtype, text_emb.dtype)
    if image_emb.is_cuda and find_spec("triton") is not None:
        from zerovl.objective.triton_tiles import TritonTiles, supports

        if supports(image_emb.device, dtype):
            return TritonTiles(dtype)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    return TorchTiles(exact, CUDA_TILE) if image_emb.is_cuda else TorchTiles(exact)


@dataclass(frozen=True)
class SoftmaxSweep:
    """`Sweep` of the softmax loss: half of both log-sum-exps, and P + Q."""

    tiles: Tiles

    @property
    def dtype(self) -> torch.dtype:
        """As in `Sweep`."""
        return self.tiles.dtype

    def value(
        self, image: Tensor, all_text: Tensor, scale: Tensor, bias: Tensor | None, ranks: Collectives
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As in `Sweep`; a bias would change nothing, so there is none."""
        row_lse, column_lse = self.tiles.log_sum_exps(image, all_text, scale)  # (b,), (B,) over the own rows
        if ranks.world_size > 1:
            column_lse = torch.logsumexp(ranks.gather(column_lse[None]), dim=0)  # (W, B) -> (B,)
        return 0.5 * (row_lse.sum() + column_lse[own_columns(image, ranks)].sum()), (row_lse, column_lse)

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
        row_lse, column_lse = kept
        return *self.tiles.gradients(image, all_text, scale, row_lse, column_lse, targets, first_column), None

    def positives(self, equal: EqualPairs, values: Tensor) -> Tensor:
        """As in `Sweep`: they share the mass of one equally, in rows and in columns."""
        return equal.shares(values)
