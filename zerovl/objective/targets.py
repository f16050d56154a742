"""Which pairs belong together: the own partner, with mixup a second one, and those with an equal caption or picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Loss = weight x loss(own pair) + (1 - weight) x loss(partner's pair).

    `partner` (b,) holds local row numbers and is an involution (partner[partner[i]] = i), so that
    the targets of rows and of columns are the same; None where nothing is mixed. `side` is what was mixed.

    `identities` (b, 2) are two integers a pair, of its caption and of its picture, before they are mixed. Where one of
    them is that of another pair of the global batch, the two belong together as well; None: no two pairs do.
    """

    weight: float = 1.0
    partner: Tensor | None = None
    side: Literal["image", "text"] = "image"
    identities: Tensor | None = None

    def mixed(self, own: Tensor) -> Tensor:
        """Mix along dimension 0: rows (b, ...) with those of their partners, by the targets' weights."""
        if self.partner is None:
            return own
        return self.weight * own + (1 - self.weight) * own[self.partner]
