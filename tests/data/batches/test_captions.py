import numpy as np
import pytest

from zerovl.data.batches.captions import ACTION, CHOICE, REPLACEMENT, mask_tokens
from zerovl.data.batches.randomness import RowRandom, keys64
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
