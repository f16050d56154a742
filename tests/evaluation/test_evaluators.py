"""A second evaluator, known to the table alone: metrics.json, page, card, terminal, UI and gate have its names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.real_world import make_model, make_project, settings
from zerovl.commands import summary
from zerovl.errors import ZeroVLError
from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.evaluators import EVALUATORS
from zerovl.evaluation.metrics import (
    HEADLINE,
    RETRIEVAL,
    Score,
    Table,
    cell,
    find,
    headline_block,
    headline_part,
    headline_title,
    known_names,
    metric_names,
    metrics_json,
    retrieval_blocks,
)
from zerovl.evaluation.retrieval import RSUM
from zerovl.files import write_json
from zerovl.release import model_card
from zerovl.release.gate import NoHolder, judge
from zerovl.stages import evaluate
from zerovl.workspace import Workspace


class Spread:
    """Says how far apart the pictures' embeddings lie: 0 for a model that has collapsed."""

    name = "spread"

    def evaluate(self, evaluation: Evaluation) -> Table:
        pool, embeddings = evaluation.pool, evaluation.embeddings.image

        def block(rows: Any) -> dict[str, Score]:
            distance = float((embeddings[rows] - embeddings[rows].mean(0)).norm(dim=1).mean())
            return {"distance": Score(distance, distance - 0.5, distance + 0.5), "pictures": Score(len(rows))}

        sources = {source: block(pool.images_of(source)) for source in pool.sources}
        return Table(block(range(len(pool.keys))), sources)


class Inapplicable:
    """Needs what the data do not have."""

    name = "labels"

    def evaluate(self, evaluation: Evaluation) -> None:
        return None


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, Any]]:
    """A project evaluated with both, and its metrics.json."""
    workspace = make_project(tmp_path_factory.mktemp("project"))
    make_model(workspace, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        for evaluator in (Spread(), Inapplicable()):
            patch.setitem(EVALUATORS, evaluator.name, evaluator)
        evaluate.run(settings(workspace.root), workspace)
    return workspace, json.loads(workspace.evaluation_metrics.read_text())


def test_metrics_json_keeps_its_form_and_gets_a_key(
    evaluated: tuple[Workspace, dict[str, Any]], tmp_path: Path
) -> None:
    workspace, metrics = evaluated[0], dict(evaluated[1])
    assert list(metrics) == ["mean", "overall", "sources", "unseen", "evaluation_digest", "model_digest", "evaluators"]
    table = metrics["evaluators"]
    assert list(table) == ["spread"]
    assert list(table["spread"]["sources"]) == ["alpha", "beta"]
    overall = table["spread"]["overall"]
    assert list(overall) == ["distance", "distance_low", "distance_high", "pictures"]
    assert overall["distance"] == pytest.approx(overall["distance_low"] + 0.5, abs=1e-3)
    assert overall["pictures"] == 24

    alone = Workspace(tmp_path / "alone")
    shutil.copytree(workspace.root, alone.root)
    evaluate.run(settings(workspace.root), alone)
    del metrics["evaluators"]
    assert json.loads(alone.evaluation_metrics.read_text()) == metrics


def test_page_terminal_card_and_ui_show_it(
    evaluated: tuple[Workspace, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.artifacts import render_summary  # Prefect takes seconds to import

    workspace, metrics = evaluated
    value, interval = cell(metrics["evaluators"]["spread"]["sources"]["beta"], "distance")
    assert value
    assert " to " in interval
    page = workspace.evaluation_page.read_text()
    assert "<h2>spread</h2>" in page
    assert f'<td>{value}<span class="range">{interval}</span></td><td>12</td>' in page

    lines = evaluate.summary(metrics).splitlines()
    assert [line.split()[0] for line in lines] == [
        *("source", "mean", "pool", "alpha", "beta"),
        *("spread", "all", "alpha", "beta"),
    ]
    assert lines[5].split() == ["spread", "distance", "pictures"]
    assert f"{value} [{interval}]" in lines[-1]

    row = f"| beta | {value} ({interval}) | 12 |"
    card = model_card.render(settings(workspace.root), metrics, {}, {}, usage="", details={})
    assert row in card[card.index("### spread") : card.index("## Limits")]
    assert row in render_summary(metrics, None, None)

    write_json(workspace.release, {"name": "zerovl", "version": 1, "alias": "", "store": "registry"})
    capsys.readouterr()
    summary.show(workspace)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  spread ")]
    assert line.endswith(", pictures 24")


@pytest.mark.parametrize(
    ("name", "bound", "passed"),
    [
        ("spread.pictures", 24, True),
        ("spread.pictures", 25, False),
        ("spread.pictures@beta", 12, True),
        ("spread.pictures@beta", 13, False),
        ("retrieval.t2i_r1", 0, True),
        ("retrieval.rsum@alpha", 600, False),
    ],
)
def test_the_gate_takes_a_bound_for_it(
    evaluated: tuple[Workspace, dict[str, Any]], name: str, bound: float, passed: bool
) -> None:
    workspace, metrics = evaluated
    params = settings(workspace.root, "register.gate.min_rsum=0", f"register.gate.min_metrics={{{name}: {bound}}}")
    verdict = judge(metrics, NoHolder("first"), params.register_.gate)
    (reason,) = [reason for reason in verdict.reasons if reason.rule == f"min_metrics {name}"]
    assert (reason.passed, verdict.passed) == (passed, passed)
    assert reason.value == find(metrics, name)


def test_a_bound_for_a_metric_that_is_not_there_fails_and_names_those_that_are(
    evaluated: tuple[Workspace, dict[str, Any]],
) -> None:
    workspace, metrics = evaluated
    bounds = ("register.gate.min_rsum=0", "register.gate.min_metrics={spread.gone: 1, labels.top1: 1}")
    params = settings(workspace.root, *bounds)
    failed = [
        reason for reason in judge(metrics, NoHolder("first"), params.register_.gate).reasons if reason.value is None
    ]
    assert [reason.rule for reason in failed] == ["min_metrics labels.top1", "min_metrics spread.gone", "max_drop"]
    assert "retrieval.rsum" in failed[0].note
    assert "spread.distance, spread.pictures; correct register.gate.min_metrics" in failed[0].note
    for name in ("rsum", "a.b.c", "spread.", "spread.x@"):
        with pytest.raises(ZeroVLError, match="min_metrics"):
            settings(workspace.root, f"register.gate.min_metrics={{{name}: 1}}")


def test_the_headline_is_what_retrieval_calls_its_sum() -> None:
    assert HEADLINE.name == RSUM
    assert list(EVALUATORS) == [RETRIEVAL, "folds"]


def test_names_of_metrics() -> None:
    block = {"a": Score(1.0, 0.0, 2.0), "b_low": Score(3.0), "c": Score(None), "d": Score(7)}
    made = metrics_json({RETRIEVAL: Table(block, {}), "x": Table({}, {"s@t": {"e": Score(0.123456)}})}, {"k": "v"})
    assert made["overall"] == {"a": 1.0, "a_low": 0.0, "a_high": 2.0, "b_low": 3.0, "c": None, "d": 7}
    assert metric_names(made) == ["a", "b_low", "c", "d"]
    assert known_names(made) == ["retrieval.a", "retrieval.b_low", "retrieval.c", "retrieval.d", "x.e"]
    assert find(made, "x.e@s@t") == 0.1235
    assert [find(made, name) for name in ("retrieval.d", "retrieval.c", "x.e", "y.e", "x.e@s", "rsum")] == [
        7.0,
        *[None] * 5,
    ]
    assert find({"overall": {"rsum": 5.0}, "sources": {}}, "retrieval.rsum") == 5.0  # a release of before


def test_the_headline_is_the_mean_and_the_pool_for_releases_without_one() -> None:
    before: dict[str, Any] = {"overall": {"rsum": 5.0}, "sources": {"a": {"rsum": 7.0}}}
    assert headline_block(before) == ("pool", {"rsum": 5.0})
    assert [name for name, _ in retrieval_blocks(before)] == ["pool", "a"]
    assert headline_title(before) == "RSUM, pool of all sources"
    now = {**before, "mean": {"rsum": 8.0}, "unseen": ["b"], "sources": {"a": {"rsum": 7.0}, "b": {"rsum": 9.0}}}
    assert headline_block(now) == ("mean", {"rsum": 8.0})
    assert [name for name, _ in retrieval_blocks(now)] == ["mean", "pool", "a", "b (unseen)"]
    assert headline_title(now) == "RSUM, mean over 2 sources"
    assert [find(now, f"retrieval.rsum{at}") for at in ("", "@pool", "@b")] == [8.0, 5.0, 9.0]
    alone = {**now, "sources": {"pool": {"rsum": 7.0}}}
    assert retrieval_blocks(alone) == [("pool", {"rsum": 8.0})]  # the source of this name; as the headline has it
    assert [name for name, _ in retrieval_blocks({**alone, "unseen": ["pool"]})] == ["pool (unseen)"]
    assert find(alone, "retrieval.rsum@pool") == 7.0
    assert (headline_title(alone), headline_block({})) == ("RSUM", ("pool", {}))
    assert [headline_part(its) for its in (before, now, {})] == [headline_block(its) for its in (before, now, {})]
    only = {**now, "sources": {"b": {"rsum": 9.0}}}
    assert headline_part(only) == ("b", {"rsum": 8.0})
    assert headline_part({**before, "sources": {"b": {}}})[0] == "pool"  # of before there was a mean
