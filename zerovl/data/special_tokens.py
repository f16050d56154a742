"""Ids of a tokenizer that have a meaning of their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpecialTokens:
    """Holds the ids of a tokenizer that masking must know."""

    pad: int
    cls: int
    sep: int
    mask: int
    unk: int
    vocab_size: int

    @property
    def lowest_ordinary_id(self) -> int:
        """First of the ids that random tokens are drawn from, up to vocab_size: BERT's special ones come before."""
        return 1 + max(self.pad, self.cls, self.sep, self.mask, self.unk)
