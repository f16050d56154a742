from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from zerovl.data.batches.epochs import EpochStream
from zerovl.data.batches.permutation import Permutation
from zerovl.data.batches.sampling import MIXED, DebiasedSampler, GlobalBatch, ShuffledSampler, make_sampler
from zerovl.data.batches.visits import EachPair
from zerovl.errors import ZeroVLError

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 10, 13, 31, 32, 33, 97, 127, 128, 129, 997, 1000, 4095, 4096, 4097, 65537, 99991]


@pytest.mark.parametrize("n", SIZES)
def test_permutation_is_a_bijection(n: int) -> None:
    for key in range(3):
        values = Permutation(n, key, "source", 0)(np.arange(n))
        np.testing.assert_array_equal(np.sort(values), np.arange(n))


def test_permutation_of_a_huge_range_is_injective_and_in_range() -> None:
    n = 10**15 + 37
    positions = np.concatenate([np.arange(20_000), n - 1 - np.arange(20_000)])
    values = Permutation(n, "key")(positions)
    assert np.unique(values).size == positions.size
    assert values.min() >= 0
    assert values.max() < n
    assert abs(values.mean() / n - 0.5) < 0.01


def test_permutation_is_the_same_in_every_call_shape() -> None:
    permutation = Permutation(1000, 1)
    whole = permutation(np.arange(1000))
    parts = [permutation(np.array([i])) for i in range(1000)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def within_five_deviations(counts: np.ndarray, expected: float, degrees: int) -> bool:
    """A chi-square statistic has mean `degrees` and variance 2 x `degrees`."""
    chi_square = ((counts - expected) ** 2 / expected).sum()
    return bool(abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees))


@pytest.mark.parametrize("n", [2, 3, 5, 10, 33])
def test_permutation_puts_any_value_anywhere(n: int) -> None:
    keys = 400 * min(n, 10)
    table = np.zeros((n, n))  # position x value
    for key in range(keys):
        table[np.arange(n), Permutation(n, key)(np.arange(n))] += 1
    # Rows and columns of the table have fixed sums: (n - 1)^2 degrees of freedom, each scaled by n / (n - 1).
    assert within_five_deviations(table, keys / n, n * (n - 1))


def test_neighbours_scatter_uniformly() -> None:
    n, bins = 1_000_003, 20
    values = Permutation(n, "neighbours")(np.arange(200_000))
    places = values * bins // n
    assert within_five_deviations(np.bincount(places, minlength=bins), 10_000, bins - 1)
    pairs = np.bincount(places[:-1] * bins + places[1:], minlength=bins * bins)
    assert within_five_deviations(pairs, 199_999 / bins**2, bins**2 - 1)
    steps = (values[1:] - values[:-1]) % n * bins // n
    assert within_five_deviations(np.bincount(steps, minlength=bins), 199_999 / bins, bins - 1)


def test_epochs_and_seeds_differ() -> None:
    orders = [Permutation(500, *key)(np.arange(500)) for key in ((0, "a", 0), (0, "a", 1), (1, "a", 0), (0, "b", 0))]
    for i, one in enumerate(orders):
        for other in orders[i + 1 :]:
            assert (one == other).mean() < 0.05


@pytest.mark.parametrize(
    ("n", "batch_size"),
    [(1, 1), (2, 1), (2, 2), (3, 2), (7, 7), (9, 8), (11, 8), (13, 8), (15, 8), (16, 8), (17, 8), (100, 8), (101, 64)],
)
def test_stream_visits_each_once_an_epoch_and_none_twice_a_batch(n: int, batch_size: int) -> None:
    for key in range(5):
        stream = EpochStream(n, batch_size, key)
        batches = [stream.batch(k) for k in range(12 * n // batch_size + 1)]
        assert all(np.unique(batch).size == batch_size for batch in batches)
        rows = np.concatenate(batches)
        for epoch in range(12):
            np.testing.assert_array_equal(np.sort(rows[epoch * n : (epoch + 1) * n]), np.arange(n))


@pytest.mark.parametrize(("n", "batch_size"), [(9, 8), (13, 8), (100, 8), (101, 64)])
def test_stream_does_not_depend_on_what_was_asked_before(n: int, batch_size: int) -> None:
    stream = EpochStream(n, batch_size, "key")
    in_order = [stream.batch(k) for k in range(60)]
    for k in np.random.default_rng(0).permutation(60):
        np.testing.assert_array_equal(stream.batch(int(k)), in_order[k])
        np.testing.assert_array_equal(EpochStream(n, batch_size, "key").batch(int(k)), in_order[k])


def test_deferral_changes_only_what_repeats() -> None:
    n, batch_size = 100, 8
    stream = EpochStream(n, batch_size, "key")
    rows = np.concatenate([stream.batch(k) for k in range(50)])
    changed = 0
    for epoch in range(4):
        raw = Permutation(n, "key", epoch)(np.arange(n))
        differs = np.flatnonzero(raw != rows[epoch * n : (epoch + 1) * n])
        assert (differs < batch_size).all()
        changed += differs.size
    assert changed < 10  # of 400


def debiased(steps: int, seed: int = 3) -> DebiasedSampler:
    return DebiasedSampler(EachPair({"web": 6000, "books": 3000, "art": 1000}), 64, steps, seed)


@pytest.fixture(scope="module")
def batches() -> list[GlobalBatch]:
    """10,000 debiased ones, in order."""
    sampler = debiased(10_000)
    return [sampler.batch(step) for step in range(10_000)]


def test_debiased_10_000_steps(batches: list[GlobalBatch]) -> None:
    steps: Counter[str] = Counter()
    seen: dict[str, list[np.ndarray]] = {}
    for step, batch in enumerate(batches):
        assert batch.step == step
        assert batch.source in ("art", "books", "web")
        assert (batch.source_ids == batch.sources.index(batch.source)).all()
        assert batch.rows.shape == (64,)
        steps[batch.source] += 1
        seen.setdefault(batch.source, []).append(batch.rows)
    for name, share in (("web", 0.6), ("books", 0.3), ("art", 0.1)):
        deviation = np.sqrt(10_000 * share * (1 - share))
        assert abs(steps[name] - 10_000 * share) < 4 * deviation
    for name, size in (("web", 6000), ("books", 3000), ("art", 1000)):
        rows = np.concatenate(seen[name])
        for epoch in range(rows.size // size):
            np.testing.assert_array_equal(np.sort(rows[epoch * size : (epoch + 1) * size]), np.arange(size))


def test_debiased_draws_are_independent_of_each_other(batches: list[GlobalBatch]) -> None:
    after_web = Counter(b.source for a, b in pairwise(batches) if a.source == "web")
    assert abs(after_web["web"] / after_web.total() - 0.6) < 0.03


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    short, long = debiased(50), debiased(5000)
    for step in range(50):
        np.testing.assert_array_equal(short.batch(step).rows, long.batch(step).rows)
        assert short.batch(step).source == long.batch(step).source


def test_other_seeds_other_batches() -> None:
    one, other = debiased(200, 0), debiased(200, 1)
    assert [one.batch(i).source for i in range(200)] != [other.batch(i).source for i in range(200)]


@pytest.mark.parametrize("kind", ["shuffled", "sequential"])
def test_an_epoch_visits_every_pair_once(kind: str) -> None:
    sizes = {"b": 70, "a": 50, "c": 120}  # 240 pairs, 12 batches an epoch
    sampler = make_sampler(kind, sizes, batch_size=20, epochs=3, seed=5)
    assert sampler.steps == 36
    assert sampler.sources == ("a", "b", "c")
    orders = []
    for epoch in range(3):
        batches = [sampler.batch(epoch * 12 + i) for i in range(12)]
        pairs = [(b.sources[i], int(r)) for b in batches for i, r in zip(b.source_ids, b.rows, strict=True)]
        assert sorted(pairs) == [(name, row) for name in "abc" for row in range(sizes[name])]
        orders.append(pairs)
    if kind == "shuffled":
        assert orders[0] != orders[1] != orders[2]
        assert sampler.batch(0).source == MIXED
    else:
        assert orders[0] == orders[1] == sorted(orders[0])
        assert [sampler.batch(i).source for i in (0, 2, 3)] == ["a", MIXED, "b"]


def test_slices_of_a_batch_make_it_whole() -> None:
    batch = debiased(10).batch(4)
    for world_size in (1, 2, 4):
        parts = [batch.slice(rank, world_size) for rank in range(world_size)]
        np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), batch.rows)
        assert {part.source for part in parts} == {batch.source}
    with pytest.raises(ZeroVLError, match="64 is not a multiple of the world size 3"):
        batch.slice(0, 3)


def test_a_source_smaller_than_the_batch() -> None:
    with pytest.raises(ZeroVLError) as raised:
        make_sampler("debiased", {"web": 500, "art": 63, "books": 20}, 64, 1.0, 0)
    message = str(raised.value)
    for part in ("art (63 pairs)", "books (20 pairs)", "batch_size 64", "20 or less", "merge or leave out", "shuffled"):
        assert part in message
    assert "web" not in message
    make_sampler("shuffled", {"web": 500, "art": 63}, 64, 1.0, 0)
    for kind in ("shuffled", "sequential"):
        with pytest.raises(ZeroVLError, match=r"83 training pairs together, fewer than train\.batch_size 84"):
            make_sampler(kind, {"art": 63, "books": 20}, 84, 1.0, 0)


def test_steps_and_unknown_kind() -> None:
    assert make_sampler("shuffled", {"a": 100}, 32, 1.0, 0).steps == 3
    assert make_sampler("shuffled", {"a": 100}, 32, 0.01, 0).steps == 1
    with pytest.raises(ZeroVLError, match=r"train\.sampling 'random': unknown"):
        make_sampler("random", {"a": 100}, 32, 1.0, 0)
    with pytest.raises(IndexError):
        ShuffledSampler(EachPair({"a": 100}), 10, 5, 0).batch(5)
