"""Pairs of a global batch with an equal caption or an equal picture: they belong together.

Shapes: b local pairs, B = W b pairs of all W ranks, D embedding width, k pairs of the B that have an equal one.

E (B, B) is 1 where two pairs have the caption or the picture in common: picture i shows what caption j says. It is
never held. Having the caption in common is an equivalence, so its part of E times (B, D) is a sum over each class, and
so are that of the picture and that of both:

    E = E_caption + E_picture - E_both

which costs O(k D) time and memory however many pairs are equal. E itself is no equivalence: a pair may have its
caption in common with one and its picture with another, and these two need not belong together.

With mixup, row i is made of its own picture and of its partner's (or column j of two captions). As the loss is
linear in the targets, those of a mix are the mix of those of its parts:

    sum(Y * S) = sum over u, v of A_uv (mixed I)_u . (mixed T)_v / t

where A = E for the sigmoid loss. Softmax wants targets that sum to one, in rows and in columns: equal pairs share the
mass equally, and A_uv = E_uv (1 / n_u + 1 / n_v) / 2, with n the row sums of E. Both A are symmetric.

Why positives, and not masked out of the negatives: the sweeps over all logits, in torch and in Triton, stay as they
are, and what is added is exact on any number of ranks. Softmax at its optimum has all equal pairs equally near.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zerovl.distributed.collectives import Collectives
from zerovl.objective.targets import Targets

Positives = Callable[["EqualPairs", Tensor], Tensor]  # A @ values, (k, D) -> (k, D)


@dataclass(frozen=True)
class EqualPairs:
    """E, restricted to the k pairs that have an equal one: the others belong to themselves alone."""

    rows: Tensor  # (k,) their numbers in the global batch, ascending
    classes: tuple[Tensor, Tensor, Tensor]  # (k,) each, numbered from 0: by caption, by picture, by both
    counts: Tensor  # (k,) pairs that are equal to each, itself included

    def sums(self, values: Tensor) -> Tensor:
        """E @ values, (k, D)."""
        caption, picture, both = (_class_sums(values, classes) for classes in self.classes)
        return caption + picture - both

    def shares(self, values: Tensor) -> Tensor:
        """The mean of both ways to share a mass of one: (E / n_rows + E / n_columns) / 2 @ values, (k, D)."""
        n = self.counts[:, None].to(values.dtype)
        return 0.5 * (self.sums(values) / n + self.sums(values / n))


def find_equal_pairs(identities: Tensor) -> EqualPairs | None:
    """Return the pairs of a global batch that have an equal one, None where there are none.

    `identities` (B, 2) are integers of the captions and of the pictures.
    """
    captions, pictures = (_numbered(column) for column in identities.unbind(1))  # (B,) each
    both = _numbered(captions * len(identities) + pictures)
    counts = _sizes(captions) + _sizes(pictures) - _sizes(both)
    rows = (counts > 1).nonzero().squeeze(1)
    if not len(rows):
        return None
    classes = _numbered(captions[rows]), _numbered(pictures[rows]), _numbered(both[rows])
    return EqualPairs(rows, classes, counts[rows])


@dataclass(frozen=True)
class ExtraTargets:
    """A - 1: what equal pairs add to the targets of the own pairs, as one rank sees it."""

    equal: EqualPairs
    weight: float
    image_partner: Tensor | None  # (b,) local rows, where pictures are mixed
    text_partner: Tensor | None  # (B,), where captions are mixed
    mine: Tensor  # (k',) which of the k are local
    local: Tensor  # (k',) their local rows

    def of_images(self, all_text: Tensor, positives: Positives) -> Tensor:
        """(A - 1) @ mixed T for the local pairs, (k', D), from (B, D)."""
        text = self._mixed(all_text, self.equal.rows, self.text_partner)
        return (positives(self.equal, text) - text)[self.mine]

    def product(self, image: Tensor, all_text: Tensor, positives: Positives) -> Tensor:
        """sum((Y - own Y) * I T^t) over the local rows, a scalar."""
        return (self._mixed(image, self.local, self.image_partner) * self.of_images(all_text, positives)).sum()

    def mass(self, positives: Positives) -> Tensor:
        """sum(Y - own Y) over the local rows, a scalar."""
        ones = torch.ones(len(self.equal.rows), 1, dtype=torch.float64, device=self.mine.device)
        return (positives(self.equal, ones) - ones)[self.mine].sum()

    def subtract(
        self, factor: float, grad_image: Tensor, grad_all_text: Tensor, embeddings: tuple[Tensor, Tensor], by: Positives
    ) -> None:
        """grad_image -= factor (Y - own Y) T and grad_all_text -= factor (Y - own Y)^t I, both in place.

        `embeddings` are the local images (b, D) and all texts (B, D); `by` is how positives share.
        """
        image, all_text = embeddings
        self._add_mixed(grad_image, self.local, -factor * self.of_images(all_text, by), self.image_partner)
        own = grad_all_text.new_zeros(len(self.equal.rows), image.shape[1])  # (k, D)
        own[self.mine] = self._mixed(image, self.local, self.image_partner)
        self._add_mixed(grad_all_text, self.equal.rows, -factor * (by(self.equal, own) - own), self.text_partner)

    def _mixed(self, values: Tensor, rows: Tensor, partner: Tensor | None) -> Tensor:
        own = _exact(values[rows])
        if partner is None:
            return own
        return self.weight * own + (1 - self.weight) * _exact(values[partner[rows]])

    def _add_mixed(self, total: Tensor, rows: Tensor, extra: Tensor, partner: Tensor | None) -> None:
        """The transpose of `_mixed`; rows are distinct, and so are their partners."""
        if partner is None:
            total[rows] += extra
            return
        total[rows] += self.weight * extra
        total[partner[rows]] += (1 - self.weight) * extra


def extra_targets(targets: Targets, ranks: Collectives) -> ExtraTargets | None:
    """Return what equal pairs of the global batch add to the targets; None where there are none. A collective."""
    if targets.identities is None:
        return None
    equal = find_equal_pairs(ranks.gather(targets.identities))
    b, partner = len(targets.identities), targets.partner
    is_text = partner is not None and targets.side == "text"
    all_partners = ranks.gather(partner + ranks.rank * b) if partner is not None and is_text else None  # (B,)
    if equal is None:
        return None
    local = equal.rows - ranks.rank * b
    mine = ((local >= 0) & (local < b)).nonzero().squeeze(1)
    return ExtraTargets(equal, targets.weight, None if is_text else partner, all_partners, mine, local[mine])


def _numbered(values: Tensor) -> Tensor:
    """(n,) integers -> (n,) numbers from 0, equal for equal values."""
    numbers: Tensor = torch.unique(values, return_inverse=True)[1]
    return numbers


def _sizes(classes: Tensor) -> Tensor:
    """(n,) the number of members of each one's class."""
    return torch.bincount(classes)[classes]


def _class_sums(values: Tensor, classes: Tensor) -> Tensor:
    """Each row of (k, D) becomes the sum over its class; members are added in their order, so the bits are fixed."""
    order = torch.argsort(classes, stable=True)
    sums: Tensor = torch.segment_reduce(values[order], "sum", lengths=torch.bincount(classes))
    return sums[classes]


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
