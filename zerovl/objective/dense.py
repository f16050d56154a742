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
    if targets.identities is not None:
        together = _together(targets, logits).to(logits.dtype)
        rows = _mixed(targets, together / together.sum(dim=1, keepdim=True))  # each picture's captions share 1
        columns = _mixed(targets, together / together.sum(dim=0))  # each caption's pictures share 1
        return 0.5 * (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, columns.T))
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
    together = _together(targets, logits)
    loss = targets.weight * _yes_or_no(logits, together)
    if targets.partner is not None:
        loss = loss + (1 - targets.weight) * _yes_or_no(logits, _of_partners(targets, together))
    return loss


def _yes_or_no(logits: Tensor, together: Tensor) -> Tensor:
    return -F.logsigmoid(torch.where(together, logits, -logits)).sum() / len(logits)


def _together(targets: Targets, logits: Tensor) -> Tensor:
    """Which pictures and captions belong together before they are mixed, (B, B) of truth values."""
    if targets.identities is None:
        return torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    return (targets.identities[:, None] == targets.identities).any(dim=2)


def _mixed(targets: Targets, own: Tensor) -> Tensor:
    """Targets (B, B) of a mix: those of its parts, by their weights."""
    if targets.partner is None:
        return own
    return targets.weight * own + (1 - targets.weight) * _of_partners(targets, own)


def _of_partners(targets: Targets, own: Tensor) -> Tensor:
    """Rows are pictures, columns captions."""
    return own[targets.partner] if targets.side == "image" else own[:, targets.partner]
