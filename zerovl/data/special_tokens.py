"""Ids of a tokenizer that have a meaning of their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of a tokenizer that masking must know."""

    pad: int
    cls: int
    sep: int
    mask: int
    unk: int
    vocab_size: int

    @property
    def lowest_ordinary_id(self) -> int:
        """Random tokens are drawn from [lowest_ordinary_id, vocab_size): BERT's special ones come first."""
        return 1 + max(self.pad, self.cls, self.sep, self.mask, self.unk)
