"""`register.gate.max_drops`: single metrics against the holder's, paired where both kept their queries."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.support.fake_world import FakeEncoder, make_world
from zerovl.errors import ZeroVLError
from zerovl.evaluation.figures import Figures
from zerovl.evaluation.items import ITEMS_SCHEMA, read_items, write_items
from zerovl.evaluation.metrics import OVERALL, Interval, Score, Table, Unpaired
from zerovl.evaluation.query_ranks import read_queries
from zerovl.evaluation.scores import by_source, score, write_queries
from zerovl.params import EvaluateParams, GateParams, MachineParams
from zerovl.release import holder, kept_ranks
from zerovl.release.gate import Comparison, LostHolder, NoHolder, Reason, judge
from zerovl.release.named_drops import Measured, differences
from zerovl.workspace import Workspace

SETTINGS = EvaluateParams(bootstrap=50)
SET = {"digest": "d", "templates": ["{}"]}
_OF_THE_POOL = (pc.field("pool") == OVERALL) & (pc.field("direction") == "i2t")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Measured, Measured, float]:
    """A model that sees, a blind one, both of two sources, and by how much the i2t_r1 of alpha differs."""
    folder, world = tmp_path_factory.mktemp("queries"), make_world()
    pool, both = world.encoded(FakeEncoder(), FakeEncoder(seed=1, blind=True))
    found, recalls = [], []
    for ours, theirs in (both, both[::-1]):
        scores = score(pool, ours, theirs, 100, 20, 0)
        write_queries(folder / "queries.parquet", pool, scores)
        recalls.append(by_source(pool, scores)["alpha"].result.metrics["i2t_r1"])
        found.append(
            Measured(_metrics(60.0 - 10 * len(found)), read_queries(folder / "queries.parquet"), {"pets": SET})
        )
    return found[0], found[1], recalls[0] - recalls[1]


def _metrics(top1: float, digest: str = "same") -> dict[str, Any]:
    block = {"rsum": 300.0, "rsum_low": 290.0, "rsum_high": 310.0, "chance_rsum": 10.0, "i2t_r1": 50.0}
    evaluators = {"pets": {"overall": {"top1": top1}}, "spread": {"overall": {"distance": 2.0 + top1}}}
    sources = {"alpha": block, "beta": block}
    return {"mean": block, "overall": block, "sources": sources, "evaluation_digest": digest, "evaluators": evaluators}


def test_recalls_are_paired_and_others_two_numbers(pair: tuple[Measured, Measured, float]) -> None:
    candidate, holder, by = pair
    names = ("retrieval.i2t_r1@alpha", "retrieval.rsum", "retrieval.i2t_r1@pool", "pets.top1", "spread.distance")
    found = differences(names, candidate, holder, SETTINGS)
    recall = found["retrieval.i2t_r1@alpha"]
    assert isinstance(recall, Score)
    assert recall.value == pytest.approx(by)
    assert by > 20
    assert recall.low is not None
    assert recall.high is not None
    assert recall.low < by < recall.high
    assert isinstance(found["retrieval.rsum"], Score)
    pool = found["retrieval.i2t_r1@pool"]
    assert isinstance(pool, Score)
    recalls = [its.queries.filter(_OF_THE_POOL)["r1"].to_numpy().mean() for its in (candidate, holder)]
    assert pool.value == pytest.approx(100 * (recalls[0] - recalls[1]))
    assert (pool.low, pool.high) != (None, None)
    assert found["pets.top1"] == Score(10.0)
    assert found["spread.distance"] == Score(10.0)


def test_a_set_s_metric_is_paired_where_both_kept_its_pictures(
    pair: tuple[Measured, Measured, float], tmp_path: Path
) -> None:
    def measured(of: Measured, top1: float, right: int, keys: str) -> Measured:
        figures = [Figures("top1", [f"{keys}{n}" for n in range(10)], np.arange(10.0) < right)]
        write_items(tmp_path / "items.parquet", {"pets": Table({}, {}, figures=figures)})
        return replace(of, metrics=_metrics(top1), items=read_items(tmp_path / "items.parquet"))

    candidate, holder = (measured(its, *top1, "p") for its, top1 in zip(pair, ((30.0, 3), (80.0, 8)), strict=False))
    drop = differences(["pets.top1"], candidate, holder, SETTINGS)["pets.top1"]
    assert isinstance(drop, Score)
    assert (drop.value, drop.low is not None) == (pytest.approx(-50.0), True)
    assert drop.high is not None
    assert drop.high < 0
    other = measured(pair[1], 80.0, 8, "q")  # the digest says that they are equal, their names that they are not
    said = differences(["pets.top1"], candidate, other, SETTINGS)["pets.top1"]
    assert said == "it was asked of other items; the next candidate is compared"
    damaged = replace(pair[1], no_items="items.parquet is damaged")
    assert differences(["pets.top1"], candidate, damaged, SETTINGS)["pets.top1"] == Unpaired(
        -20.0, why="items.parquet is damaged"
    )
    assert differences(["pets.top1@pool"], candidate, holder, SETTINGS)["pets.top1@pool"] == drop


def test_what_was_asked_otherwise_is_not_compared(pair: tuple[Measured, Measured, float]) -> None:
    candidate, holder, _ = pair
    names = ("pets.top1", "pets.top5", "spread.distance", "spread.gone")
    other = Measured(_metrics(50.0, "other"), holder.queries, {"pets": SET | {"templates": ["a {}"]}})
    metrics = _metrics(60.0)
    metrics["evaluators"]["pets"]["overall"]["top5"] = 90.0
    found = differences(names, Measured(metrics, candidate.queries, candidate.sets), other, SETTINGS)
    assert "the set pets has other pictures, classes or templates now" in str(found["pets.top1"])
    assert "the holder was released without it" in str(found["pets.top5"])
    assert "other validation data" in str(found["spread.distance"])
    assert found["spread.gone"] == "the candidate has no such metric"


@pytest.mark.parametrize(
    ("found", "passed", "words"),
    [
        (Score(-2.0), True, "passed   max_drops pets.top1: 2.00, bound 2.00 (two numbers"),
        (Unpaired(-2.0, why="it is damaged"), True, "(two numbers, without a paired interval: it is damaged"),
        (Score(-2.1), False, "FAILED   max_drops pets.top1: 2.10, bound 2.00"),
        (Score(-9.0, -12.0, -6.0), False, "FAILED   max_drops pets.top1: 9.00 [6.00, 12.00], bound 2.00"),
        (Score(-9.0, -12.0, 0.5), True, "it may be chance"),
        (Score(0.0, 0.0, 0.0), True, "passed   max_drops pets.top1: 0.00 [0.00, 0.00], bound 2.00"),
        (Score(5.0), True, "passed   max_drops pets.top1: a gain of 5.00, bound 2.00"),
        (Score(None), False, "FAILED"),
        ("the set pets has other pictures", True, "skipped  max_drops pets.top1 (the set pets has other pictures)"),
    ],
)
def test_the_gate_takes_them(found: Score | str, passed: bool, words: str) -> None:
    reason = _judged(Comparison(Interval(0.0, -1.0, 1.0), {}, named={"pets.top1": found}), "pets.top1")
    assert reason.passed is passed
    assert words in str(reason)


def test_without_a_holder_it_is_skipped_and_a_wrong_name_is_told() -> None:
    assert _judged(NoHolder("the alias has no holder yet"), "pets.top1").passed
    assert not _judged(LostHolder("it cannot be loaded"), "pets.top1").passed
    wrong = _judged(NoHolder("the alias has no holder yet"), "pets.top9")
    assert not wrong.passed
    assert "pets.top1" in wrong.note
    assert "register.gate.max_drops" in wrong.note


def _judged(holder: Comparison | LostHolder | NoHolder, name: str) -> Reason:
    verdict = judge(_metrics(60.0), holder, GateParams(max_drops={name: 2.0}))
    return next(reason for reason in verdict.reasons if reason.rule == f"max_drops {name}")


def test_folds_of_another_size_are_not_compared() -> None:
    def folds(size: float, rsum: float) -> Measured:
        metrics = _metrics(50.0)
        metrics["evaluators"]["folds"] = {"overall": {"pictures": size, "rsum": rsum}}
        return Measured(metrics, pa.table({}), {})

    (same,) = differences(["folds.rsum"], folds(1000, 300.0), folds(1000, 290.0), SETTINGS).values()
    assert same == Score(10.0)
    (other,) = differences(["folds.rsum"], folds(500, 300.0), folds(1000, 290.0), SETTINGS).values()
    assert other == "the holder was scored in folds of another size; the next candidate is compared"


def test_why_the_holder_s_items_are_not_to_be_had_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holder, "fetch_items", lambda *_: "items.parquet is damaged")
    holders = holder.Holders(SETTINGS, Workspace(tmp_path), MachineParams(), ["pets.top1"])
    version = SimpleNamespace(metrics={}, provenance={})
    measured = holders._holder(cast("Any", None), cast("Any", version), pa.table({}))
    assert (measured.items, measured.no_items) == (None, "items.parquet is damaged")


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    path = tmp_path / "reports" / "evaluation" / "items.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(ITEMS_SCHEMA.with_metadata({"format": "zerovl-items-2"}).empty_table(), path)
    return path


def test_a_newer_form_of_the_holder_s_items_leaves_intervals_out(
    monkeypatch: pytest.MonkeyPatch, newer: Path, pair: tuple[Measured, Measured, float]
) -> None:
    monkeypatch.setattr(kept_ranks.transfer, "fetch_file", lambda *its: shutil.copy(newer, its[-1]))
    version = SimpleNamespace(files={"items.parquet": None}, reference="zerovl@2")
    why = kept_ranks.fetch_items(cast("Any", SimpleNamespace(store=None)), cast("Any", version))
    said = "items.parquet of zerovl@2: written by a newer zerovl (zerovl-items-2, this one reads zerovl-items-1)"
    assert why == f"{said}; update zerovl"
    held = replace(pair[1], no_items=why)
    assert differences(["pets.top1"], pair[0], held, SETTINGS)["pets.top1"] == Unpaired(10.0, why=why)


def test_a_newer_form_of_the_candidate_s_items_leaves_intervals_out(
    monkeypatch: pytest.MonkeyPatch, newer: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(holder, "read_queries", lambda _: pa.table({}))
    workspace = Workspace(tmp_path)
    assert workspace.evaluation_items == newer
    measured = holder.Holders(SETTINGS, workspace, MachineParams(), ["pets.top1"])._candidate({})
    assert measured.items is None
    assert measured.no_items.startswith(
        "the candidate's figures by item were written by a newer zerovl (zerovl-items-2"
    )
    newer.write_bytes(b"PAR1 no")
    with pytest.raises(ZeroVLError, match=r"items\.parquet: not a table of figures by item"):
        holder.Holders(SETTINGS, workspace, MachineParams(), ["pets.top1"])._candidate({})
