"""A class with one picture: linear probes learn from it and go on, and it is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.fake_world import FakeEncoder, png
from tests.support.real_world import settings
from zerovl import log
from zerovl.distributed.ranks import ALONE
from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.classification import linear_probe, paper_probe
from zerovl.evaluation.classification.evaluator import Classification
from zerovl.evaluation.classification.linear_probe import IN_NO_FOLD, PENALTIES, Layer, fit, folds_of, probe
from zerovl.evaluation.markdown import further_tables
from zerovl.evaluation.metrics import Table
from zerovl.evaluation.report.class_tables import class_note

LABELS = np.array([0, 1] * 6 + [2])


class Towers(FakeEncoder):
    """A model whose image tower gives the mean colour."""

    def tower_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (n, 3)."""
        return images.float().mean((2, 3))

    def embed_features(self, features: torch.Tensor) -> torch.Tensor:
        """Return embeddings (n, D)."""
        return self._embed(features, self.weights)


def features_of(labels: np.ndarray) -> torch.Tensor:
    noise = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0))
    return 5 * torch.nn.functional.one_hot(torch.from_numpy(labels), 4) + noise


def evaluated(folder: Path, measures: str) -> Table:
    given = f"{{name: fruit, folder: {folder}, templates: name, measures: [{measures}]}}"
    evaluation, model = object.__new__(Evaluation), Towers()
    values = {"settings": settings(folder, f"evaluate.classification=[{given}]").evaluate, "ranks": ALONE}
    for name, value in {**values, "model": model, "untrained": model}.items():
        object.__setattr__(evaluation, name, value)
    return Classification.of(evaluation.settings.classification[0]).evaluate(evaluation)


def write_set(folder: Path, **pictures: int) -> Path:
    for place, (name, count) in enumerate(pictures.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(png((100 * place, 5 * number, 200 - 60 * place)))
    return folder


def test_it_is_in_no_fold_and_all_others_are_where_they_were() -> None:
    folds = folds_of(LABELS, 5, seed=0)
    assert folds[-1] == IN_NO_FOLD
    assert np.bincount(folds[:-1]).tolist() == [3, 3, 2, 2, 2]
    assert np.array_equal(folds_of(np.arange(4), 5, seed=0), [IN_NO_FOLD] * 4)


@pytest.mark.parametrize("by_views", [False, True])
def test_every_layer_learns_from_it_and_it_is_not_scored(by_views: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    features, learned = features_of(LABELS), []

    def noted(its: torch.Tensor, labels: torch.Tensor, classes: int, seed: int) -> Layer:
        learned.append(labels.tolist())
        return fit(its, labels, classes, seed)

    def epoch(self: paper_probe.LayerInTraining, x: torch.Tensor, labels: torch.Tensor) -> None:
        learned.append(labels.tolist())

    if by_views:
        monkeypatch.setattr(paper_probe.LayerInTraining, "epoch", epoch)
        found = paper_probe.probe_by_views(features, LABELS, None, 0, lambda _: features)
    else:
        found = linear_probe.probe(features, LABELS, None, 0, noted)
        assert found.right(LABELS).all()
    assert len(learned) >= 5
    assert all(labels.count(2) == 1 for labels in learned)
    assert found.scored.tolist() == [True] * 12 + [False]
    assert found.right(LABELS).shape == (12,)


def test_it_is_never_held_out_where_the_penalty_is_chosen() -> None:
    """Held out it would cost more the weaker the penalty, as the layer knows nothing of its class."""
    numbers = (LABELS + 1) % 3  # the one picture is of the first class, whose pictures are dealt from fold 0 on
    features, labels = features_of(numbers).double(), torch.from_numpy(numbers)
    chosen = {fit(features, labels, 3, seed).penalty for seed in range(6)}
    assert max(chosen) <= 1e-4
    assert fit(features[[0, 1, 12]], labels[[0, 1, 12]], 3, seed=0).penalty == PENALTIES[0]  # there is none to hold out
    scored = probe(features[:12], numbers[:12], (features[[0, 1, 12]], numbers[[0, 1, 12]]), seed=0)
    assert scored.scored.all()


def test_the_set_is_scored_and_what_that_means_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(log.logger(), "warning", said.append)
    table = evaluated(write_set(tmp_path, apple=4, pear=4, plum=1), "zero_shot, linear_probe, paper_probe")
    assert table.overall["pictures"].value == 9
    assert 0 < table.overall["probe_top1"].value <= 100
    figures = {its.metric: its for its in table.figures}
    assert [len(figures[name].items) for name in ("top1", "probe_top1", "paper_probe_top1")] == [9, 8, 8]
    assert set(figures["probe_top1"].items) < set(figures["top1"].items)
    assert table.details["with_one_picture"] == ["plum"]
    sentence = (
        "1 class has one picture that can be read (plum): linear probes learn from it in every fold, and it is not"
    )
    assert f"fruit: {sentence}" in "\n".join(said)
    assert sentence in class_note(table.details)
    metrics = {"evaluators": {"fruit": {"overall": {"probe_top1": 1.0}, "sources": {}}}}
    assert sentence in further_tables(metrics, {"fruit": table.details}).replace("\\", "")


def test_without_a_probe_nothing_is_said(tmp_path: Path) -> None:
    assert "with_one_picture" not in evaluated(write_set(tmp_path, apple=2, pear=1), "zero_shot").details
