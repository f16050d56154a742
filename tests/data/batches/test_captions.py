from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.shard_fixture import WordTokenizer
from zerovl.data.batches.captions import ACTION, CHOICE, REPLACEMENT, cut, mask_tokens
from zerovl.data.batches.randomness import RowRandom, keys64
from zerovl.data.batches.sides import Captions, DrawnPair
from zerovl.data.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4, vocab_size=5000)


def captions(lengths: list[int], columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of [CLS], `length` ordinary tokens, [SEP], padding."""
    ids = np.zeros((len(lengths), columns), dtype=np.int64)
    for row, length in enumerate(lengths):
        ids[row, : length + 2] = [2, *(100 + 40 * row + np.arange(length)), 3]
    return ids, (np.arange(columns) < np.array(lengths)[:, None] + 2).astype(np.int64)


def slow_reference(ids: np.ndarray, mask: np.ndarray, probability: float, rng: RowRandom) -> tuple[list, list]:
    """Token by token, for the same draws."""
    choice, action, replacement = (rng.uniform(stream, ids.shape[1]) for stream in (CHOICE, ACTION, REPLACEMENT))
    all_ids, all_masks = [], []
    for i in range(ids.shape[0]):
        ordinary = [j for j in range(ids.shape[1]) if mask[i, j] and ids[i, j] not in (0, 2, 3)]
        drop = {j for j in ordinary if choice[i, j] < probability and action[i, j] >= 0.6}
        if ordinary and len(drop) == len(ordinary):
            drop.remove(min(ordinary, key=lambda j: action[i, j]))
        row = []
        for j in range(ids.shape[1]):
            if not mask[i, j] or j in drop:
                continue
            token = int(ids[i, j])
            if j in ordinary and choice[i, j] < probability:
                if action[i, j] < 0.5:
                    token = 4
                elif action[i, j] < 0.6:
                    token = 5 + int(replacement[i, j] * (5000 - 5))
            row.append(token)
        padding = ids.shape[1] - len(row)
        all_masks.append([1] * len(row) + [0] * padding)
        all_ids.append(row + [0] * padding)
    return all_ids, all_masks


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.7, 0.999])
def test_equals_the_slow_reference(probability: float) -> None:
    lengths = [0, 1, 1, 2, 2, 3, 5, 8, 13, 23] * 20
    ids, mask = captions(lengths, 25)
    before = ids.copy(), mask.copy()
    rng = RowRandom(np.arange(200, dtype=np.uint64))
    new_ids, new_mask = mask_tokens(ids, mask, SPECIAL, probability, rng)
    expected_ids, expected_mask = slow_reference(ids, mask, probability, rng)
    np.testing.assert_array_equal(new_ids, expected_ids)
    np.testing.assert_array_equal(new_mask, expected_mask)
    assert new_ids.dtype == new_mask.dtype == np.int64
    np.testing.assert_array_equal((ids, mask), before)


def test_shares_of_the_recipe() -> None:
    rows, length = 5000, 20
    ids, mask = captions([length] * rows, length + 2)
    ids[:, 1:-1] = 4999 - np.arange(length)  # none is likely to be drawn as a replacement at its place
    new_ids, new_mask = mask_tokens(ids, mask, SPECIAL, 0.2, RowRandom(np.arange(rows, dtype=np.uint64)))
    total = rows * length
    dropped = total + 2 * rows - int(new_mask.sum())
    masked = int((new_ids == SPECIAL.mask).sum())
    untouched = int(((new_ids > 4999 - length) & (new_mask == 1)).sum())
    replaced = int(new_mask.sum()) - 2 * rows - masked - untouched
    for count, share in ((masked, 0.1), (replaced, 0.02), (dropped, 0.08), (untouched, 0.8)):
        assert (
            abs(count - total * share) < 5 * np.sqrt(total * share * (1 - share)) + total * 0.02 * 20 / 5000
        )  # a drawn id may be an own one
    random_ids = new_ids[(new_ids > 4) & (new_ids <= 4999 - length)]
    assert random_ids.min() < 50
    assert random_ids.max() > 4900
    assert random_ids.mean() == pytest.approx(2500, rel=0.1)


def test_a_caption_never_loses_all_tokens_and_ends_with_sep() -> None:
    lengths = [1, 2, 3] * 2000
    ids, mask = captions(lengths, 6)
    new_ids, new_mask = mask_tokens(ids, mask, SPECIAL, 0.99, RowRandom(np.arange(6000, dtype=np.uint64)))
    remaining = new_mask.sum(axis=1)
    assert remaining.min() == 3
    assert (new_ids[:, 0] == SPECIAL.cls).all()
    assert (new_ids[np.arange(6000), remaining - 1] == SPECIAL.sep).all()
    assert (new_ids[new_mask == 0] == SPECIAL.pad).all()


def test_does_not_depend_on_padding_or_neighbours() -> None:
    narrow, narrow_mask = captions([6, 6], 8)
    wide, wide_mask = captions([6, 6], 25)
    seeds = np.array([11, 12], dtype=np.uint64)
    together = mask_tokens(wide, wide_mask, SPECIAL, 0.5, RowRandom(seeds))
    for row in range(2):
        alone = mask_tokens(narrow[row : row + 1], narrow_mask[row : row + 1], SPECIAL, 0.5, RowRandom(seeds[row:][:1]))
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], other[row, :8])
            assert (other[row, 8:] == 0).all()


def test_draws_are_uniform_and_streams_differ() -> None:
    rng = RowRandom(np.array(keys64(8, "a") + keys64(8, "b"), dtype=np.uint64))
    for stream in range(3):
        counts = np.histogram(rng.uniform(stream, 5000), bins=50, range=(0, 1))[0]
        assert ((counts - 1600) ** 2 / 1600).sum() < 49 + 5 * np.sqrt(98)
    correlation = np.corrcoef(rng.uniform(0, 5000).ravel(), rng.uniform(1, 5000).ravel())[0, 1]
    assert abs(correlation) < 5 / np.sqrt(80_000)


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_dropped_token_leaves_is_filled_before_the_cut(ends: bool) -> None:
    lengths = [3, 6, 7, 20, 40] * 100
    ids, mask = captions(lengths, 42)
    special = SPECIAL if ends else SpecialTokens(pad=0, unk=1, cls=2, sep=None, mask=4, vocab_size=5000)
    masked = mask_tokens(ids, mask, special, 0.3, RowRandom(np.arange(500, dtype=np.uint64)))
    new_ids, new_mask = cut(*masked, special, 8)
    assert new_ids.shape == new_mask.shape == (500, 8)
    for row in range(500):
        tokens = masked[0][row][masked[1][row] == 1].tolist()
        expected = tokens[:7] + tokens[-1:] if ends and len(tokens) > 8 else tokens[:8]
        assert new_ids[row][new_mask[row] == 1].tolist() == expected
    # Long captions lose words and are as long as may be nevertheless, which cutting first would not give.
    assert (new_mask[4::5].sum(axis=1) == 8).all()
    short = captions([2, 5], 7)
    for one, other in zip(cut(*short, special, 8), short, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_micro_batch_is_masked_whole_and_then_cut() -> None:
    tokenize = WordTokenizer()
    tokenize.max_tokens = 6
    text = " ".join(f"word{i}" for i in range(40))
    pair: Any = SimpleNamespace(sample=SimpleNamespace(captions=[text]))
    ids, mask = Captions(tokenize, 0.5)([DrawnPair(pair, 0, 0, seed) for seed in range(20)])
    draws = RowRandom(np.arange(20, dtype=np.uint64))
    masked = mask_tokens(*tokenize.whole([text] * 20), tokenize.special, 0.5, draws)
    for one, other in zip((ids, mask), cut(*masked, tokenize.special, 6), strict=True):
        np.testing.assert_array_equal(one.numpy(), other)
    assert mask.shape == (20, 6)
    assert mask.all()
