"""The bounded-memory answers against the plain ones."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zerovl.data import bucket_files
from zerovl.data.bucket_files import BucketFiles
from zerovl.data.validation import repeats as repeats_module
from zerovl.data.validation import tables
from zerovl.data.validation.repeats import EqualRows, Leaks, NearIndex, Repeats


@pytest.mark.parametrize("bucket_rows", [1 << 20, 16, 1])
def test_repeats_equal_a_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket_rows: int) -> None:
    monkeypatch.setattr(bucket_files, "BUCKET_ROWS", bucket_rows)
    generator = np.random.default_rng(0)
    values = [f"key-{number}" for number in generator.integers(0, 700, 1000)]
    repeats = Repeats(limit=2000)
    with BucketFiles(tmp_path, "keys", 1000) as files:
        assert len(list(tmp_path.iterdir())) == {1 << 20: 1, 16: 64, 1: 128}[bucket_rows]
        for start in range(0, 1000, 300):
            part = values[start : start + 300]
            files.add_strings(part, np.arange(start, start + len(part)))
        for group, places in files.groups():
            repeats.add(group, places)
    first = {value: values.index(value) for value in values}
    assert repeats.count == sum(count - 1 for count in Counter(values).values())
    expected = {(place, first[value]) for place, value in enumerate(values) if first[value] != place}
    assert set(repeats.examples) == expected


def test_integers_repeat_within_their_scope_only(tmp_path: Path) -> None:
    ids = np.array([-1, 0, 7, 2**62, 7], np.int64)
    repeats = Repeats(limit=9)
    with BucketFiles(tmp_path, "ids", 10) as files:
        files.add_integers(ids, 0, np.arange(5))
        files.add_integers(ids[:4], 1, np.arange(5, 9))
        for group, places in files.groups():
            repeats.add(group, places)
    assert repeats.examples == [(4, 2)]


def test_leaks_equal_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_files, "BUCKET_ROWS", 32)
    generator = np.random.default_rng(1)
    values = generator.integers(0, 600, 1000)
    in_train = generator.random(1000) < 0.7
    found = Leaks(limit=1000)
    with BucketFiles(tmp_path, "pictures", 1000) as files:
        files.add_strings([str(value) for value in values], np.arange(1000))
        for group, places in files.groups():
            found.add(group, places, in_train[places])
    trained = set(values[in_train])
    expected = [place for place in range(1000) if not in_train[place] and values[place] in trained]
    assert found.count == len(expected)
    assert sorted(place for place, _ in found.examples) == expected
    for place, partner in found.examples:
        assert in_train[partner]
        assert values[place] == values[partner]


@pytest.mark.parametrize("distance", [0, 1, 2, 4, 7, 16])
def test_near_pictures_equal_brute_force(monkeypatch: pytest.MonkeyPatch, distance: int) -> None:
    monkeypatch.setattr(repeats_module, "_PAIRS", 50)  # several rounds a chunk
    generator = np.random.default_rng(distance)
    train = generator.integers(0, 2**64, 400, dtype=np.uint64)
    train[:50] = 0  # plain pictures: many with one hash
    valid = generator.integers(0, 2**64, 300, dtype=np.uint64)
    for row in range(200):  # neighbours at 0 to distance + 2 bits
        bits = generator.choice(64, row % (distance + 3), replace=False).astype(np.uint64)
        valid[row] = train[row] ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=np.uint64(0))
    index = NearIndex(valid, np.arange(1000, 1300), distance)
    for start in range(0, 400, 90):
        index.look(train[start : start + 90], np.arange(start, min(start + 90, 400)))
    apart = np.bitwise_count(valid[:, None] ^ train[None, :])
    near = (apart <= distance).any(1)
    assert 0 < near.sum() < 300
    assert index.count == near.sum()
    for place, partner, bits_between in index.examples(300):
        assert apart[place - 1000, partner] == bits_between <= distance
    places = [place for place, *_ in index.examples(300)]
    assert places == sorted(places)
    assert set(valid[np.array(places) - 1000]) == set(valid[near])


def test_near_with_nothing_to_compare() -> None:
    none = np.empty(0, np.uint64)
    for distance in (2, 16):
        index = NearIndex(none, np.empty(0, np.int64), distance)
        index.look(np.arange(3, dtype=np.uint64), np.arange(3))
        assert index.count == 0
        index = NearIndex(np.arange(3, dtype=np.uint64), np.arange(3), distance)
        index.look(none, np.empty(0, np.int64))
        assert index.examples(5) == []


@pytest.mark.parametrize("bucket_rows", [1 << 20, 16])
def test_equal_rows_equal_a_counter_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket_rows: int) -> None:
    monkeypatch.setattr(bucket_files, "BUCKET_ROWS", bucket_rows)
    generator = np.random.default_rng(2)
    rows_of: list[dict[str, set[int]]] = [{}, {}]
    found = EqualRows(2)
    with BucketFiles(tmp_path, "captions", 1000) as files:
        for table in (0, 1):
            values = [str(number) for number in generator.integers(0, 300, 500)]
            rows = np.repeat(np.arange(250), 2)  # two captions each, now and then the same one twice
            files.add_strings(values, tables.place(table, 0) + rows)
            for value, row in zip(values, rows.tolist(), strict=True):
                rows_of[table].setdefault(value, set()).add(row)
        for group, places in files.groups():
            found.add(group, places)
    for table in (0, 1):
        sizes = [len(rows) for rows in rows_of[table].values()]
        assert found.values[table] == sum(size for size in sizes if size > 1)
        assert found.pairs[table] == sum(size * (size - 1) // 2 for size in sizes)
