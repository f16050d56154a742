"""The losses as the papers write them: the slow references of `tiled` and `sigmoid`.

Shapes: b local pairs, B = W b pairs of all ranks, D embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zerovl.objective.targets import Targets


def dense_contrastive_loss(image_emb: Tensor, text_emb: Tensor, temperature: Tensor, targets: Targets) -> Tensor:
    """0.5 x (image-to-text + text-to-image cross-entropy) of one rank's whole batch (arXiv 2112.09331, sec. 3).

    Args:
        image_emb, text_emb: normalised, (B, D).
        temperature: scalar; the logits are image_emb @ text_emb.T / temperature, (B, B).
        targets: who belongs to whom.

    Returns:
        The mean over the batch, a scalar; autograd does the rest. Memory O(B^2).
    """
    logits = image_emb @ text_emb.T / temperature  # (B, B)
    own = torch.arange(len(logits), device=logits.device)
    loss = targets.weight * _both_ways(logits, own)
    if targets.partner is not None:
        loss = loss + (1 - targets.weight) * _both_ways(logits, targets.partner)
    return loss


def _both_ways(logits: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def dense_sigmoid_loss(
    image_emb: Tensor, text_emb: Tensor, temperature: Tensor, bias: Tensor, targets: Targets
) -> Tensor:
    """-1/B sum_ij log sigmoid(z_ij (image_i . text_j / temperature + bias)) of one rank's whole batch.

    Source: arXiv 2303.15343, sec. 3.2, with z_ij = 1 where i and j belong together, else -1; 1 / temperature is its t.

    Args:
        image_emb, text_emb: normalised, (B, D).
        temperature, bias: scalars.
        targets: who belongs to whom. With mixup, weight x loss(own) + (1 - weight) x loss(partner).

    Returns:
        A scalar; autograd does the rest. Memory O(B^2).
    """
    logits = image_emb @ text_emb.T / temperature + bias  # (B, B)
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    loss = targets.weight * _yes_or_no(logits, own)
    if targets.partner is not None:
        loss = loss + (1 - targets.weight) * _yes_or_no(logits, own[targets.partner])
    return loss


def _yes_or_no(logits: Tensor, together: Tensor) -> Tensor:
    return -F.logsigmoid(torch.where(together, logits, -logits)).sum() / len(logits)
