"""Figures by item: the bootstrap of their differences against a slow reference, and the file that keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zerovl.errors import ZeroVLError
from zerovl.evaluation.figures import Figures
from zerovl.evaluation.items import ITEMS_SCHEMA, NewerFormError, read_items, write_items
from zerovl.evaluation.metrics import Interval, Table
from zerovl.evaluation.paired_items import NotPaired, paired_items

Write = Callable[[list[Figures]], pa.Table]
RESAMPLES, SEED = 60, 3
OTHER = NotPaired("unpaired", "it was asked of other items")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write figures of an evaluator "e" and read them again."""

    def written(figures: list[Figures]) -> pa.Table:
        write_items(tmp_path / "items.parquet", {"e": Table({}, {}, figures=figures)})
        return read_items(tmp_path / "items.parquet")

    return written


def mean_of_classes(seed: int) -> list[Figures]:
    """Nine pictures of three classes, one of which a resample often lacks."""
    hits = np.random.default_rng(seed).random(9).round()
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    return [Figures("m", [f"picture {number}" for number in range(9)], hits, group=group)]


def sum_of_folds(seed: int) -> list[Figures]:
    """Two folds of one source and one of another, both directions; pictures with one to three captions."""
    random, captions = np.random.default_rng(seed), np.random.default_rng(99)
    found = []
    for source, draw, pictures in (("a", 0, 5), ("a", 1, 4), ("b", 0, 7)):
        of = captions.integers(1, 4, pictures).astype(float)
        names = [str(number) for number in range(10 * draw, 10 * draw + pictures)]
        found.append(Figures("m", names, random.random(pictures), source=source, draw=draw))
        hits = of * random.random(pictures)
        found.append(Figures("m", names, hits, of, source=source, draw=draw, part=1))
    return found


def slow_value(figures: list[Figures], drawn: dict[tuple[str, int], list[str]]) -> float:
    """The metric by the words of `figures.py`, an item at a time; `drawn` are the items of each draw, with repeats."""
    of_sources: dict[str, dict[int, list[float]]] = {}
    for its in figures:
        row = {name: place for place, name in enumerate(its.items)}
        classes: dict[int, list[tuple[float, float]]] = {}
        for name in drawn[its.source, its.draw]:
            group = 0 if its.group is None else int(its.group[row[name]])
            of = 1.0 if its.of is None else float(its.of[row[name]])
            classes.setdefault(group, []).append((float(its.hits[row[name]]), of))
        mean = fmean(sum(hits for hits, _ in rows) / sum(of for _, of in rows) for rows in classes.values())
        of_sources.setdefault(its.source, {}).setdefault(its.draw, []).append(mean)
    return 100 * fmean(fmean(sum(parts) for parts in draws.values()) for draws in of_sources.values())


def slow_difference(ours: list[Figures], theirs: list[Figures]) -> tuple[float, float, float]:
    """Draw items by name, score both models on each resample from nothing."""
    names = {(its.source, its.draw): sorted(its.items) for its in ours}
    generator = np.random.default_rng(SEED)
    found = []
    for _ in range(RESAMPLES):
        drawn = {}
        for key in sorted(names):
            its = names[key]
            drawn[key] = [its[place] for place in generator.integers(len(its), size=len(its))]
        found.append(slow_value(ours, drawn) - slow_value(theirs, drawn))
    low, high = np.quantile(found, [0.025, 0.975])
    return slow_value(ours, names) - slow_value(theirs, names), float(low), float(high)


@pytest.mark.parametrize("made", [mean_of_classes, sum_of_folds])
def test_equals_scoring_both_on_each_resample(write: Write, made: Callable[[int], list[Figures]]) -> None:
    ours, theirs = made(0), made(1)
    found = paired_items(write(ours), write(theirs), "e", "m", "", RESAMPLES, SEED)
    assert isinstance(found, Interval)
    assert astuple(found) == pytest.approx(slow_difference(ours, theirs), abs=1e-9)
    assert found.low < found.value < found.high


def test_a_source_alone(write: Write) -> None:
    ours, theirs = sum_of_folds(0), sum_of_folds(1)
    found = paired_items(write(ours), write(theirs), "e", "m", "b", RESAMPLES, SEED)
    alone = [[its for its in figures if its.source == "b"] for figures in (ours, theirs)]
    assert isinstance(found, Interval)
    assert astuple(found) == pytest.approx(slow_difference(*alone), abs=1e-9)


def test_the_order_of_items_does_not_matter(write: Write) -> None:
    (its,), theirs = mean_of_classes(0), write(mean_of_classes(1))
    assert its.group is not None
    turned = replace(its, items=its.items[::-1], hits=its.hits[::-1].copy(), group=its.group[::-1].copy())
    both = [paired_items(write([each]), theirs, "e", "m", "", RESAMPLES, SEED) for each in (its, turned)]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"items": [f"other {number}" for number in range(9)]}, OTHER),
        ({"group": np.zeros(9, np.int64)}, OTHER),
        ({"of": np.full(9, 2.0)}, OTHER),
        ({"draw": 1}, OTHER),
        ({"metric": "n"}, NotPaired("no interval")),
    ],
)
def test_other_items_are_not_paired(write: Write, changed: dict[str, Any], found: NotPaired) -> None:
    (its,) = mean_of_classes(0)
    both = write([its]), write([replace(its, **changed)])
    assert paired_items(*both, "e", "m", "", RESAMPLES, SEED) == found


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZeroVLError, match=r"nothing\.parquet: no such file"):
        read_items(tmp_path / "nothing.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ZeroVLError, match=r"broken\.parquet: not a table of figures by item"):
        read_items(tmp_path / "broken.parquet")
    later = ITEMS_SCHEMA.with_metadata({"format": "zerovl-items-2"})
    pq.write_table(later.empty_table(), tmp_path / "later.parquet")
    with pytest.raises(NewerFormError, match=r"later\.parquet: written by a newer zerovl \(zerovl-items-2, .*; update"):
        read_items(tmp_path / "later.parquet")
    for form in ("zerovl-items-0", "zerovl-items-x", "2"):
        pq.write_table(ITEMS_SCHEMA.with_metadata({"format": form}).empty_table(), tmp_path / "other.parquet")
        with pytest.raises(ZeroVLError, match=f"other\\.parquet: says '{form}', expected 'zerovl-items-1'"):
            read_items(tmp_path / "other.parquet")
    pq.write_table(ITEMS_SCHEMA.empty_table().drop_columns("of"), tmp_path / "fewer.parquet")
    with pytest.raises(ZeroVLError, match=r"fewer\.parquet: says 'zerovl-items-1', expected"):
        read_items(tmp_path / "fewer.parquet")
