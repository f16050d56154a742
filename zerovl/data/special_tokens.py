"""Ids of a tokenizer that have a meaning of their own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class SpecialTokens:
    """Holds the ids of a tokenizer that masking must know; None where a tokenizer has no such token."""

    pad: int
    cls: int | None  # what a caption begins with
    sep: int | None  # what it ends with
    mask: int | None
    unk: int | None
    vocab_size: int

    @cached_property
    def never_chosen(self) -> tuple[int, ...]:
        """Tokens that are no words: padding, beginning and end."""
        return tuple(number for number in (self.pad, self.cls, self.sep) if number is not None)

    @cached_property
    def ordinary(self) -> range:
        """Ids that random tokens are drawn from: the longest run without a special one.

        BERT's special tokens come before it, RoBERTa's on both sides, CLIP's behind.
        """
        special = sorted({number for number in (*self.never_chosen, self.mask, self.unk) if number is not None})
        begins, ends = [0, *(number + 1 for number in special)], [*special, self.vocab_size]
        return max((range(begin, end) for begin, end in zip(begins, ends, strict=True)), key=len)
