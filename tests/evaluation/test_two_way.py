"""One sweep over tiles gives what the dense ranking gives each way, on any number of ranks, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.support.thread_ranks import on_ranks
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation import two_way
from zerovl.evaluation.ranking import DistinctRows, Ranking, rank
from zerovl.evaluation.two_way import rank_both_ways

Data = tuple[torch.Tensor, torch.Tensor, np.ndarray]


def _whole_numbers(rows: int, width: int, generator: np.random.Generator, largest: int) -> torch.Tensor:
    """Values of which float32 holds all products and sums, so that two ways to a score agree to the bit."""
    return torch.from_numpy(generator.integers(-largest, largest + 1, (rows, width)).astype(np.float32))


def many_ties() -> Data:
    """Scores of a few values, captions that pictures share, equal pictures, three captions a picture on average."""
    generator = np.random.default_rng(0)
    images, texts = _whole_numbers(60, 3, generator, 2), _whole_numbers(180, 3, generator, 2)
    owners = np.concatenate([np.arange(60), generator.integers(0, 60, 120)])
    return images, texts, generator.permutation(owners)


def few_ties() -> Data:
    generator = np.random.default_rng(1)
    owners = np.repeat(np.arange(50), 5)
    images = _whole_numbers(50, 16, generator, 200)
    return images, images[owners] + _whole_numbers(250, 16, generator, 300), owners


def all_equal() -> Data:
    return torch.ones(23, 4), torch.ones(70, 4), np.concatenate([np.arange(23), np.arange(23), np.arange(23), [5]])


def one_pair() -> Data:
    return torch.ones(1, 2), torch.ones(1, 2), np.array([0])


def dense(images: torch.Tensor, texts: torch.Tensor, owners: np.ndarray) -> tuple[Ranking, Ranking]:
    own = np.arange(len(images))
    return rank(images, texts, own, owners, 1000), rank(texts, images, owners, own, 1000)


def assert_equal(found: tuple[Ranking, ...], expected: tuple[Ranking, ...]) -> None:
    for its, should in zip(found, expected, strict=True):
        for name in ("better", "right", "wrong"):
            assert np.array_equal(getattr(its, name), getattr(should, name)), name


@pytest.mark.parametrize("data", [many_ties, few_ties, all_equal, one_pair])
@pytest.mark.parametrize("chunk", [1, 13, 64, 5000])
def test_equals_the_dense_ranking(data: Callable[[], Data], chunk: int) -> None:
    assert_equal(rank_both_ways(*data(), chunk, ALONE), dense(*data()))


def test_the_data_would_show_a_difference() -> None:
    i2t, t2i = dense(*many_ties())
    assert (i2t.wrong > 0).any()
    assert (i2t.right > 1).any()
    assert len(np.unique(t2i.better)) > 10


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_gives_the_same_to_the_bit(world_size: int) -> None:
    """With values of which float32 rounds every sum."""
    generator = torch.Generator().manual_seed(0)
    images, owners = torch.randn(90, 24, generator=generator), np.random.default_rng(0).integers(0, 90, 300)
    owners[:90] = np.arange(90)
    texts = images[torch.from_numpy(owners)] + torch.randn(300, 24, generator=generator)
    alone = rank_both_ways(images, texts, owners, 40, ALONE)
    assert (alone[0].better > 0).sum() > 5
    for found in on_ranks(
        world_size,
        lambda its: rank_both_ways(images, texts, owners, 40, Ranks(its.rank, world_size, ALONE.device, its)),
    ):
        assert_equal(found, alone)


def test_a_right_item_ties_with_itself_whatever_a_product_rounds_to() -> None:
    """Shared captions make right pairs away from the diagonal; the first pass must see the tile of the second."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(300, 37, generator=generator)
    texts = torch.randn(40, 37, generator=generator).repeat(10, 1)[:400]  # each ten times
    i2t, t2i = rank_both_ways(images, texts, np.arange(400) % 300, 32, ALONE)
    assert (i2t.right >= 1).all()
    assert (i2t.right + i2t.wrong == 10).all()  # the equal captions, and nothing else
    assert (t2i.wrong == 0).all()


def test_no_more_than_a_few_tiles_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    tile = two_way._Tiles._tile

    def noted(*arguments: object) -> torch.Tensor:
        found: torch.Tensor = tile(*arguments)  # type: ignore[arg-type]
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(two_way._Tiles, "_tile", noted)
    rank_both_ways(*few_ties(), 20, ALONE)
    assert max(sizes) == 5 * 20
    assert len(sizes) < 1.4 * 10 * 13  # beside the sweep those along the diagonal


def test_distinct_rows_stand_in_the_order_of_their_first_appearance() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, -0.0], [0.5, 0.5], [2.0, 0.0]])
    found = DistinctRows.of(rows)
    assert found.first.tolist() == [0, 1, 3]
    assert found.place.tolist() == [0, 1, 0, 2, 1]
    assert found.copies.tolist() == [2, 2, 1]
    by_columns = DistinctRows.of(rows.T.contiguous().T)  # as arrays of Fortran's order are in memory
    assert by_columns.place.tolist() == found.place.tolist()
