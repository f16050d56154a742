"""What is paired of two subjects, and the word where it is not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.paths import ROOT
from zerovl.comparison import opening
from zerovl.comparison.differences import Row, compare
from zerovl.comparison.subject import Subject, in_order
from zerovl.comparison.terminal import numbers
from zerovl.evaluation.figures import Figures
from zerovl.evaluation.items import ITEMS_SCHEMA, read_items, write_items
from zerovl.evaluation.metrics import Table
from zerovl.evaluation.query_ranks import read_queries
from zerovl.files import read_json

OLD = ROOT / "tests" / "assets" / "release_before_items"


@pytest.fixture
def old() -> Subject:
    metrics, origin = read_json(OLD / "metrics.json"), read_json(OLD / "provenance.json")
    queries = in_order(read_queries(OLD / "queries.parquet"))
    return Subject("old", "", metrics, queries, sets=origin["classification"])


def row_of(first: Subject, other: Subject, part: str, metric: str) -> Row:
    return next(row for row in compare([first, other], 20, 0).rows if (row.part, row.metric) == (part, metric))


def lacking(first: Subject, other: Subject, metric: str) -> str:
    (change,) = row_of(first, other, "mean", metric).changes
    assert change is not None
    return f"{change.lacking.word}: {change.lacking.why}" if change.interval is None else "paired"


def test_what_was_asked_otherwise_is_unpaired_before_anything_is_said_of_items(old: Subject) -> None:
    again = replace(old, label="again")
    said = "no interval: made before figures by item were kept: old and again"
    assert lacking(old, again, "colours.top1") == lacking(old, again, "folds.rsum") == said
    other = replace(old, sets={"colours": {**old.sets["colours"], "digest": "other"}})
    assert lacking(old, other, "colours.top1") == "unpaired: the set has other pictures, classes or templates"
    unknown = replace(again, sets={})
    assert lacking(old, unknown, "colours.top1") == said
    other = replace(old, metrics={**old.metrics, "evaluation_digest": "other"})
    assert lacking(old, other, "folds.rsum") == "unpaired: they were evaluated on other data"


def test_folds_need_no_ranks_by_query(old: Subject, tmp_path: Path) -> None:
    figures = [Figures("rsum", [f"p{n}" for n in range(10)], np.arange(10.0) < 5, source="alpha")]
    write_items(tmp_path / "items.parquet", {"folds": Table({}, {}, figures=figures)})
    first = replace(old, queries=None, items=read_items(tmp_path / "items.parquet"))
    assert lacking(first, first, "folds.rsum") == "paired"


def test_a_newer_form_of_items_leaves_its_intervals_out_and_the_rest_stands(old: Subject, tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "release")
    later = ITEMS_SCHEMA.with_metadata({"format": "zerovl-items-2"})
    pq.write_table(later.empty_table(), tmp_path / "release" / "items.parquet")
    newer = opening._evaluated("newer", "", tmp_path / "release", {}, old.sets)
    why = "newer: its figures by item were written by a newer zerovl (zerovl-items-2, this one reads zerovl-items-1)"
    for metric in ("colours.top1", "folds.rsum"):
        assert lacking(old, newer, metric) == f"no interval: {why}; update zerovl"
        (change,) = row_of(old, newer, "mean", metric).changes
        assert change is not None
        assert change.value == 0.0
    assert lacking(old, newer, "rsum") == "paired"


def test_one_source_of_all_is_one_row(old: Subject) -> None:
    block = old.metrics["sources"]["alpha"]
    alone = {**old.metrics, "mean": block, "overall": block, "sources": {"alpha": block}}
    one = replace(old, metrics=alone, queries=None)

    def parts(*subjects: Subject) -> list[str]:
        return [row.part for row in compare(subjects, 20, 0).rows if row.metric == "rsum"]

    assert parts(one, one) == ["mean"]
    assert parts(one, old) == ["mean", "pool", "alpha", "beta"]  # what the other one has is shown beside it
    elsewhere = replace(one, metrics={**alone, "sources": {"gamma": block}})
    assert parts(one, elsewhere) == ["mean", "alpha", "gamma"]


def test_a_source_called_mean_does_not_take_the_row_of_the_mean(old: Subject) -> None:
    def renamed(table: dict[str, Any]) -> dict[str, Any]:
        return {**table, "sources": {**table["sources"], "mean": {"rsum": 1.0, "rsum_low": 0.0, "rsum_high": 2.0}}}

    metrics = renamed(dict(old.metrics))
    metrics["evaluators"] = {**metrics["evaluators"], "folds": renamed(metrics["evaluators"]["folds"])}
    named = replace(old, metrics=metrics)
    for metric in ("rsum", "folds.rsum"):
        assert row_of(named, named, "mean", metric).values == row_of(old, old, "mean", metric).values


def test_what_is_measured_comes_before_counts_and_counts_are_whole(old: Subject) -> None:
    """In a release keys are sorted as text: i2t_r10 before i2t_r5, and broken before top1."""
    rows = {row.name: row for row in compare([old, replace(old, label="again")], 20, 0).rows}
    names = [name for name in rows if name.startswith("colours.")]
    assert names[:4] == ["colours.mean_class", "colours.probe_top1", "colours.top1", "colours.top5"]
    folds = [name for name in rows if name.startswith("folds.")]
    assert folds[0] == "folds.rsum"
    assert folds.index("folds.i2t_r5") < folds.index("folds.i2t_r10")
    assert numbers(rows["colours.pictures"]) == ["21", "21"]
    assert numbers(rows["colours.chance_top1"]) == ["14.29", "14.29"]
    assert numbers(rows["RSUM"]) == [f"{old.metrics['mean']['rsum']:.2f}"] * 2
    assert numbers(replace(rows["colours.top5"], values=(100.0, None))) == ["100.00", "-"]
