"""Retrieval in folds, against a slow reference that ranks each fold alone by sorting, and what reads its metrics."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from tests.support.fake_world import FakeEncoder, World
from tests.support.real_world import make_model, make_project, settings
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.fold_ranking import folds_of
from zerovl.evaluation.folds import Folds
from zerovl.evaluation.items import read_items, write_items
from zerovl.evaluation.metrics import RECALLS, Interval, Table, find, value_of
from zerovl.evaluation.paired_items import paired_items
from zerovl.release.gate import NoHolder, judge
from zerovl.stages import evaluate


def evaluation_of(world: World, pictures: int) -> Evaluation:
    """What `Folds` reads of an evaluation, of a model and an untrained one."""
    pool, (ours, untrained) = world.encoded(FakeEncoder(), FakeEncoder(seed=1, blind=True))
    section = SimpleNamespace(folds=pictures, chunk=3, bootstrap=40, seed=0)
    made = SimpleNamespace(settings=section, pool=pool, embeddings=ours, untrained_embeddings=untrained, ranks=ALONE)
    return cast(Evaluation, made)


def table_of(world: World, pictures: int) -> dict[str, Any]:
    table = Folds().evaluate(evaluation_of(world, pictures))
    assert isinstance(table, Table)
    return table.to_json()


def sorted_recalls(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """Recalls, percent, of a pool without ties, a query at a time by a sort; `owner` (M,) is each caption's picture."""
    cosines = images @ texts.T  # (P, M)
    places: dict[str, list[int]] = {"i2t": [], "t2i": []}
    for picture, row in enumerate(cosines):
        order = np.argsort(-row)
        places["i2t"].append(min(int(np.flatnonzero(order == text)[0]) for text in np.flatnonzero(owner == picture)))
    for text, column in enumerate(cosines.T):
        places["t2i"].append(int(np.flatnonzero(np.argsort(-column) == owner[text])[0]))
    return {f"{way}_r{k}": 100 * fmean(place < k for place in places[way]) for way in places for k in (1, 5, 10)}


@pytest.mark.parametrize("pictures", [3, 7, 14])
def test_equals_each_fold_ranked_alone_by_sorting(world: World, pictures: int) -> None:
    """One caption a picture of its own, so that no two items tie."""
    for samples in world.samples.values():
        samples[:] = [(data, texts[:1], image_id) for data, texts, image_id in samples]
    evaluation, found = evaluation_of(world, pictures), table_of(world, pictures)
    pool, embeddings = evaluation.pool, evaluation.embeddings
    for number, source in enumerate(pool.sources):
        slow = []
        for start in range(number * 14, number * 14 + 14 - pictures + 1, pictures):
            rows = range(start, start + pictures)
            texts = [text for text, image in enumerate(pool.caption_image) if image in rows]
            owner = np.array([pool.caption_image[text] - start for text in texts])
            slow.append(sorted_recalls(embeddings.image[rows].numpy(), embeddings.text[texts].numpy(), owner))
        block = found["sources"][source]
        for name in RECALLS:
            assert block[name] == pytest.approx(fmean(its[name] for its in slow), abs=1e-3)
        assert block["rsum"] == pytest.approx(fmean(sum(its.values()) for its in slow), abs=1e-3)
        assert (block["pictures"], block["folds"], block["left_out"]) == (pictures, 14 // pictures, 14 % pictures)
        assert block["rsum_low"] <= block["rsum"] <= block["rsum_high"]
        assert block["untrained_rsum"] < block["rsum"]
    for name in (*RECALLS, "rsum", "untrained_rsum", "chance_rsum"):
        assert found["overall"][name] == pytest.approx(fmean(its[name] for its in found["sources"].values()), abs=1e-3)
    assert (found["overall"]["pictures"], found["overall"]["folds"]) == (pictures, 2 * (14 // pictures))


def test_what_is_kept_of_each_picture_gives_the_metrics(world: World, tmp_path: Path) -> None:
    table = Folds().evaluate(evaluation_of(world, 6))
    assert isinstance(table, Table)
    write_items(tmp_path / "items.parquet", {"folds": table})
    kept = read_items(tmp_path / "items.parquet")
    nothing = kept.set_column(kept.schema.get_field_index("hits"), "hits", pa.array(np.zeros(len(kept))))
    found = table.to_json()
    for source, block in (("", found["overall"]), *found["sources"].items()):
        for name in (*RECALLS, "rsum"):
            its = paired_items(kept, nothing, "folds", name, source, 10, 0)
            assert isinstance(its, Interval)
            assert its.value == pytest.approx(block[name], abs=1e-3)
    assert set(kept["item"].to_pylist()) == {str(image_id) for _, _, image_id in world.samples["alpha"][:12]}


def test_folds_are_consecutive_pictures_with_all_their_captions(world: World) -> None:
    pool = evaluation_of(world, 5).pool
    folds = folds_of(pool, "beta", 5)
    assert [fold.images.tolist() for fold in folds] == [list(range(14, 19)), list(range(19, 24))]
    for fold in folds:
        assert set(pool.caption_image[fold.captions]) == set(fold.images)
        assert len(fold.captions) == np.isin(pool.caption_image, fold.images).sum() > len(fold.images)
    assert folds_of(pool, "beta", 15) == []


def test_a_picture_of_several_rows_is_one(world: World) -> None:
    """As a source with a row a caption has it: the rows of a picture are in its fold, wherever they stand."""
    del world.samples["beta"]
    rows = world.samples["alpha"]
    rows.append((rows[1][0], ["colour 1 2 3"], rows[1][2]))
    folds = folds_of(evaluation_of(world, 7).pool, "alpha", 7)
    assert [fold.images.tolist() for fold in folds] == [[0, 1, 2, 3, 4, 5, 6, 14], [7, 8, 9, 10, 11, 12, 13]]


def test_one_fold_of_everything_is_the_whole_source(world: World) -> None:
    from zerovl.evaluation.scores import by_source, score

    evaluation = evaluation_of(world, 14)
    whole = score(evaluation.pool, evaluation.embeddings, evaluation.untrained_embeddings, 100, 40, 0)
    found = table_of(world, 14)["sources"]
    for source, its in by_source(evaluation.pool, whole).items():
        block = {name: value.value for name, value in its.block().items()}
        for name in (*RECALLS, "rsum", "untrained_rsum", "chance_rsum"):
            assert found[source][name] == pytest.approx(cast(float, block[name]), abs=1e-3)
        assert found[source]["rsum_low"] == pytest.approx(its.interval.low, abs=1e-3)


def test_sources_that_are_too_small_have_none(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("zerovl"), "propagate", True)  # a command may have set up the log before
    world.samples["alpha"] = world.samples["alpha"][:4]
    found = table_of(world, 6)
    assert list(found["sources"]) == ["beta"]
    assert found["overall"]["rsum"] == found["sources"]["beta"]["rsum"]
    assert Folds().evaluate(evaluation_of(world, 0)) is None
    with caplog.at_level(logging.WARNING):
        assert Folds().evaluate(evaluation_of(world, 15)) is None
    assert "evaluate.folds: 15: no source has so many validation pictures" in caplog.text
    caplog.clear()
    second = evaluation_of(world, 15)
    cast(Any, second).ranks = Ranks(1, 2, ALONE.device, ALONE.collectives)
    assert Folds().evaluate(second) is None
    assert not caplog.text  # the first rank says it


def test_metrics_page_scores_and_gate_have_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = make_project(tmp_path, ("alpha",))
    make_model(workspace, seed=1)
    overrides = ("evaluate.folds=6", "evaluate.gallery=0", "evaluate.sample=0", "register.gate.min_rsum=0")
    bounds = "register.gate.min_metrics={folds.rsum: 1, folds.t2i_r1@alpha: 101}"
    params = settings(tmp_path, *overrides, bounds)
    evaluate.run(params, workspace)
    metrics = json.loads(workspace.evaluation_metrics.read_text())
    assert find(metrics, "folds.folds") == 2
    assert find(metrics, "folds.rsum@alpha") == find(metrics, "folds.rsum") > find(metrics, "retrieval.rsum")  # type: ignore[operator]
    scores = json.loads(workspace.evaluation_scores.read_text())
    assert scores["folds.rsum"] == round(cast(float, value_of(metrics["evaluators"]["folds"]["overall"], "rsum")), 2)
    assert "<h2>folds</h2>" in workspace.evaluation_page.read_text()
    assert "\nfolds " in capsys.readouterr().out
    reasons = {
        reason.rule: reason.passed for reason in judge(metrics, NoHolder("first"), params.register_.gate).reasons
    }
    assert (reasons["min_metrics folds.rsum"], reasons["min_metrics folds.t2i_r1@alpha"]) == (True, False)
