"""Caption augmentation of the recipe, on token ids in a batch.

Each ordinary token is chosen with the given probability; of the chosen ones half become [MASK],
one in ten a random token, and the rest are dropped; where a tokenizer has no [MASK], what would
become one is dropped too. Working on ids costs about 2 us a caption and never splits a word's pieces,
unlike rebuilding text from word pieces. As in the paper's code the whole caption is masked and cut afterwards, so that
what a dropped token leaves is filled by what comes after it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zerovl.data.batches.randomness import RowRandom
from zerovl.data.special_tokens import SpecialTokens

MASKED_SHARE = 0.5  # of the chosen tokens
REPLACED_SHARE = 0.1

# Streams of draws, see `RowRandom.uniform`.
CHOICE, ACTION, REPLACEMENT = range(3)

Ids = npt.NDArray[np.int64]


def mask_tokens(
    input_ids: Ids, attention_mask: Ids, special: SpecialTokens, probability: float, rng: RowRandom
) -> tuple[Ids, Ids]:
    """Mask, replace and drop tokens: (m, L) ids and mask -> new arrays of the same shape.

    Rows are padded on the right and stay so: what remains after dropping moves left, [SEP] stays
    last. [CLS], [SEP] and padding are never chosen. A caption whose tokens would all be dropped
    keeps the one with the lowest draw.
    """
    columns = input_ids.shape[1]
    attended = attention_mask.astype(bool)  # (m, L)
    ordinary = attended & ~np.isin(input_ids, special.never_chosen)
    chosen = ordinary & (rng.uniform(CHOICE, columns) < probability)
    action = rng.uniform(ACTION, columns)  # (m, L)
    replaced = chosen & (action >= MASKED_SHARE) & (action < MASKED_SHARE + REPLACED_SHARE)
    masked = chosen & (action < MASKED_SHARE) if special.mask is not None else np.zeros_like(chosen)
    dropped = chosen & ~masked & ~replaced

    emptied = np.flatnonzero(ordinary.any(axis=1) & (dropped == ordinary).all(axis=1))
    kept_column = np.where(ordinary, action, 2.0).argmin(axis=1)  # (m,)
    dropped[emptied, kept_column[emptied]] = False

    random_ids = special.ordinary.start + (rng.uniform(REPLACEMENT, columns) * len(special.ordinary)).astype(np.int64)
    changed = np.where(replaced, random_ids, input_ids)
    if special.mask is not None:
        changed = np.where(masked, special.mask, changed)

    kept = attended & ~dropped
    order = np.argsort(~kept, axis=1, kind="stable")  # kept tokens first, in their order
    new_mask = np.arange(columns) < kept.sum(axis=1, keepdims=True)
    new_ids = np.where(new_mask, np.take_along_axis(changed, order, axis=1), special.pad)
    return new_ids.astype(np.int64), new_mask.astype(np.int64)


def cut(input_ids: Ids, attention_mask: Ids, special: SpecialTokens, max_tokens: int) -> tuple[Ids, Ids]:
    """Cut rows after `max_tokens`, (m, L) -> (m, at most max_tokens), as a tokenizer does: the end token stays last.

    For tokenizers that end a caption with one such token or with none.
    """
    rows, columns = input_ids.shape
    if columns <= max_tokens:
        return input_ids, attention_mask
    lengths = attention_mask.sum(axis=1)  # (m,)
    ids = input_ids[:, :max_tokens].copy()
    if special.sep is not None:
        ends = input_ids[np.arange(rows), lengths - 1] == special.sep
        ids[ends & (lengths > max_tokens), -1] = special.sep
    return ids, attention_mask[:, :max_tokens].copy()
