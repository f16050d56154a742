"""A run that cannot learn, or has not, says so: with numbers and the fix, and not where it did learn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import tiny_project
from zerovl.data.batches.sampling import make_sampler
from zerovl.data.batches.visits import epoch_sizes
from zerovl.data.manifest import Manifest, ShardInfo, SplitInfo
from zerovl.evaluation.metrics import more_than_chance
from zerovl.evaluation.retrieval import retrieval_metrics
from zerovl.evaluation.training_warnings import read_warnings
from zerovl.params import Params, TrainParams
from zerovl.params_file import from_recipe
from zerovl.training import learning
from zerovl.training.launch import launch as train
from zerovl.training.periodic_evaluation import IN_FOLDS, SCORES, scores
from zerovl.training.run_spec import RunSpec


def spec(params: Params, pairs: int, start: Any = None, captions: int = 1) -> RunSpec:
    shard = ShardInfo("photos/train/000000.tar", pairs, 1, "digest")
    manifest = Manifest(Path("manifest"), {("photos", "train"): SplitInfo(pairs, captions * pairs, 0, (shard,))})
    settings = params.train
    sampler = make_sampler("shuffled", manifest.training_sizes(), settings.batch_size, settings.epochs, settings.seed)
    visits = epoch_sizes(settings.epoch_of, manifest)
    return RunSpec(manifest, sampler, None, start, None, {}, manifest.training_sizes(), visits)  # type: ignore[arg-type]


def test_too_few_steps_are_told_before_the_first_one() -> None:
    params = Params()  # the demo's settings, which are for 4,800 pairs
    (text,) = learning.foreseen(params, spec(params, pairs=700))
    assert text.startswith("44 steps (700 pairs x 8 epochs / train.batch_size 128) from random weights are too few")
    assert "Set train.epochs to 37 or more" in text
    enough = from_recipe({}, ["train.epochs=37"], "x")
    assert learning.foreseen(enough, spec(enough, pairs=700)) == []
    assert learning.foreseen(params, spec(params, pairs=4800)) == []


def test_an_epoch_of_captions_has_as_many_steps_as_there_are_captions() -> None:
    params = from_recipe({}, ["train.epoch_of=captions"], "x")
    (text,) = learning.foreseen(params, spec(params, pairs=700, captions=4))
    assert "(2,800 captions x 8 epochs / train.batch_size 128)" in text
    assert "Set train.epochs to 10 or more" in text


def test_towers_that_know_something_need_fewer_steps() -> None:
    params = from_recipe({}, ["train.epochs=10"], "x")
    assert len(learning.foreseen(params, spec(params, pairs=700))) == 1
    assert learning.foreseen(params, spec(params, pairs=700, start=object())) == []
    change = ["model.text_tower.name=some-tower", "model.text_tower.config={}", "model.text_tower.pretrained=true"]
    one = from_recipe({}, ["train.epochs=10", *change], "x")
    assert len(learning.foreseen(one, spec(one, pairs=700))) == 1  # the other one starts from random weights
    both = from_recipe({}, ["train.epochs=10", *change, "model.image_tower.pretrained=true"], "x")
    assert learning.foreseen(both, spec(both, pairs=700)) == []


def row(loss: float, low: float | None = None) -> dict[str, float]:
    scored = {} if low is None else {"valid_rsum": low + 5, "valid_rsum_low": low, "valid_rsum_high": low + 9}
    return {"loss": loss, **scored, **({} if low is None else {"valid_chance_rsum": 16.0})}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([row(4.85), row(4.62, low=8.0)], ["the loss has hardly moved: it ends at 4.62", "no better than chance"]),
        ([row(4.85), row(4.62)], ["the loss has hardly moved"]),
        ([row(4.85), row(2.0, low=20.0)], ["RSUM 25.0 [20.0, 29.0], chance 16.0"]),
        ([row(4.85, low=8.0), row(2.0, low=90.0)], []),  # the last score counts
        ([row(4.85), row(2.0)], []),  # never scored
        ([], []),
    ],
)
def test_what_was_not_learned_is_told_after_the_last_step(rows: list[dict[str, float]], told: list[str]) -> None:
    texts = learning.found(TrainParams(batch_size=128), rows)
    assert len(texts) == len(told)
    for text, part in zip(texts, told, strict=True):
        assert part in text
    assert f"{math.log(128):.2f}" == "4.85"


def test_the_curve_is_the_mean_over_sources_beside_the_pool() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(20, 8, generator=generator)) for _ in range(2))
    image[:12] = text[:12]  # the first source is solved, the second one left to chance
    found = scores(image, text, [12, 8])
    assert set(found) == set(SCORES) - {IN_FOLDS}
    alone = retrieval_metrics(image[12:], text[12:], range(8), range(8))
    assert found["valid_rsum"] == pytest.approx((600 + alone.rsum) / 2)
    assert found["valid_rsum_low"] <= found["valid_rsum"] <= found["valid_rsum_high"]
    pool = retrieval_metrics(image, text, range(20), range(20))
    assert found["valid_pool_rsum"] == pytest.approx(pool.rsum)
    assert found["valid_chance_rsum"] < more_than_chance(found["valid_chance_rsum"]) < 600


def test_a_run_that_learned_nothing_ends_well_and_with_a_warning(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = tiny_project.make_project(tmp_path)
    tiny_project.set_params(workspace, f"data.raw={tmp_path / 'raw'}", "train.epochs=0.5", "train.lr=1e-9")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("WARNING", logger="zerovl"):
        assert train(tiny_project.recipe("train.epochs=0.5", "train.lr=1e-9"), "params.yaml") == 0
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 3
    assert texts[0].startswith("3 steps (96 pairs x 0.5 epochs / train.batch_size 16)")
    assert read_warnings(workspace.training_run) == tuple(texts)
    summary = json.loads(workspace.training_metrics.read_text())
    assert {*SCORES, "first_loss", "final_loss"} - {IN_FOLDS} < summary.keys()


def test_warnings_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert read_warnings(path) == ()
    for text in ('{"warnings": ["a', "[1]", '{"fingerprint": "of before"}'):
        path.write_text(text)
        assert read_warnings(path) == ()
