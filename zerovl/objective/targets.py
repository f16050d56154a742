"""Which pairs belong together: the own partner, and with mixup a second one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Loss = weight x loss(own pair) + (1 - weight) x loss(partner's pair).

    `partner` (b,) holds local row numbers and is an involution (partner[partner[i]] = i), so that
    the targets of rows and of columns are the same; None where nothing is mixed.
    """

    weight: float = 1.0
    partner: Tensor | None = None

    def mixed(self, own: Tensor) -> Tensor:
        """Mix along dimension 0: rows (b, ...) with those of their partners, by the targets' weights."""
        if self.partner is None:
            return own
        return self.weight * own + (1 - self.weight) * own[self.partner]
