"""The ablation chooses a rate for each variant, makes each run once, and compares by seed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import ablation, ablation_runs, open_clip_run
from benchmarks.ablation_runs import Fold
from benchmarks.ablation_table import beside, seen, table, unseen
from tests.support.tiny_project import recipe
from zerovl import params_file
from zerovl.files import write_json
from zerovl.model.dual_encoder import l2_normalise
from zerovl.params import Params


def run(variant: str, seed: int, held_out: str, a: float, b: float, c: float) -> dict[str, Any]:
    return {
        "setting": "frozen",
        "variant": variant,
        "seed": seed,
        "held_out": held_out,
        "lr": 1e-3,
        "steps": 10,
        "pairs_seen": 1280 + seed,
        "sources": {"a": a, "b": b, "c": c},
    }


RUNS = [
    run("plain", 0, "a", 50.0, 100.0, 200.0),
    run("plain", 1, "b", 110.0, 60.0, 210.0),
    run("+ part", 0, "a", 52.0, 103.0, 205.0),
    run("+ part", 1, "b", 112.0, 61.0, 214.0),
    run("+ part", 100, "a", 0.0, 0.0, 0.0),  # for tuning
]


def test_what_was_left_out_is_unseen() -> None:
    assert (seen(RUNS[0]), unseen(RUNS[0])) == (150.0, 50.0)


def test_differences_are_by_seed_and_tuning_is_left_out() -> None:
    text = table(RUNS, {"frozen": ["plain", "+ part"], "learning": ["plain"]}, tuning_seed=100)
    plain, part = (line for line in text.splitlines() if line.startswith(("| plain", "| + part")))
    # seen: 150 and 160, then 154 and 163: differences 4 and 3, mean 3.5, half of the interval 12.706 * 0.7071 / sqrt(2)
    assert plain.startswith("| plain | 0.001 | 10 | 1,280 to 1,281 | 155.0 |  | 55.0 |  |")
    assert part.startswith("| + part | 0.001 | 10 | 1,280 to 1,281 | 158.5 | +3.5 ± 6.4 | 56.5 | +1.5 ± 6.4 |")
    assert part.endswith("| 112.0 | 103.0 | 209.5 |")
    assert "learning" not in text
    assert "2 seeds (left out in turn: a, b)" in text


def test_a_variant_has_all_that_those_before_it_set() -> None:
    setting = ablation.SETTINGS["frozen"]
    changes = setting.overrides("+ mixup of texts")
    assert changes.index("train.sampling=shuffled") < changes.index("train.sampling=debiased")
    assert changes[-1] == "train.mixup=text"
    assert "train.step=decoupled" not in changes


def test_each_run_is_made_once_and_the_best_rate_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []

    def measure(fold: Fold, settings: Params) -> dict[str, Any]:
        made.append(settings.train.lr)
        return {"steps": 1, "pairs_seen": 1, "sources": {"a": 9.0, "b": 100 - 1e4 * abs(settings.train.lr - 2e-3)}}

    monkeypatch.setattr(ablation, "measure", measure)
    monkeypatch.setattr(ablation, "FILE", tmp_path / "ablation.json")
    fold = Fold(tmp_path, "a", ["data.sources=[{name: a, path: a}, {name: b, path: b}]"], "digest")
    results = ablation.Results({})
    assert ablation._tuned(results, fold, "frozen", "shuffled") == 2e-3
    assert made == list(ablation.SETTINGS["frozen"].rates)
    kept = ablation.Results(ablation.read_json(ablation.FILE)["runs"])
    assert ablation._tuned(kept, fold, "frozen", "shuffled") == 2e-3
    assert len(made) == len(ablation.SETTINGS["frozen"].rates)


def test_projections_are_scored_on_frozen_towers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_runs.Manifest, "load", lambda _folder: SimpleNamespace(splits={}))
    params_file.write(recipe("train.freeze=[image]"), tmp_path / "params.yaml")
    with pytest.raises(
        SystemExit, match=r"has learned its towers \(train\.freeze is .*image.*; run a variant of `frozen`"
    ):
        ablation_runs.score(Fold(tmp_path, "", [], "digest"), nn.Identity(), nn.Identity())


def test_each_variant_stands_against_the_peer_by_seed() -> None:
    peers = [run("peer", 0, "a", 40.0, 90.0, 190.0), run("peer", 1, "b", 100.0, 55.0, 205.0)]
    text = beside([*RUNS, *peers], "peer", tuning_seed=100)
    # seen: 140 and 152.5 of the peer, 150 and 160 plain: differences 10 and 7.5
    assert "| peer | frozen | 0.001 | 146.2 |  | 47.5 |  |" in text
    assert "| plain | frozen | 0.001 | 155.0 | +8.8 ± 15.9 | 55.0 | +7.5 ± 31.8 |" in text
    assert beside(RUNS, "peer", tuning_seed=100) == ""


def test_open_clips_trainer_learns_from_stored_features(tmp_path: Path) -> None:
    """Two sources whose pictures' features are a rotation of their captions': the loss must fall to almost nothing."""
    pytest.importorskip("open_clip_train.train")
    fold = Fold(tmp_path, "", [], "digest")
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0].astype(np.float32)
    texts = np.random.default_rng(1).normal(size=(300, 16)).astype(np.float32)
    for side, features in {"image": texts @ rotation, "text": texts}.items():
        folder = tmp_path / "runs" / "features" / f"{side}-0"
        folder.mkdir(parents=True)
        np.save(folder / "a.npy", features)
        np.save(folder / "a.first.npy", np.arange(len(features) + 1))
        np.save(folder / "a.keys.npy", np.arange(len(features)).astype("S"))
        write_json(folder / "features.json", {"data": "digest"})
    trained = open_clip_run.train(fold, rate=1e-2, seed=0, steps=60)
    image = l2_normalise(trained.image(torch.from_numpy(texts @ rotation)))
    text = l2_normalise(trained.text(torch.from_numpy(texts)))
    assert ((image @ text.T).argmax(1) == torch.arange(300)).float().mean() > 0.9
