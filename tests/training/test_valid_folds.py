"""Folds during training: what a check says is what the evaluation says of the same weights."""

from __future__ import annotations

import pytest

from tests.support.tiny_project import VALID, make_project, recipe
from zerovl.data.manifest import Manifest
from zerovl.distributed.ranks import ALONE
from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.folds import Folds
from zerovl.model import bundle
from zerovl.model.encoder import Encoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import build
from zerovl.training import valid_folds
from zerovl.training.periodic_evaluation import IN_FOLDS, make_periodic_evaluation
from zerovl.training.run_spec import Run, make_spec
from zerovl.workspace import Workspace

FOLD = VALID // 2 - 1  # two folds of each source, and two pictures are left out


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project with pictures of two captions each, and a model."""
    space, section = make_project(tmp_path_factory.mktemp("folds") / "project"), recipe().model
    tokenizer = CaptionTokenizer(space.tokenizer, section.max_tokens)
    bundle.save(build(section, tokenizer.vocab_size, seed=3), tokenizer, space.model)
    return space


def test_a_check_equals_the_evaluation_of_the_same_weights(workspace: Workspace) -> None:
    params = recipe(f"evaluate.folds={FOLD}", f"train.valid_pairs={2 * VALID}", "train.valid_checks=2")
    run = Run(params, workspace, ALONE, make_spec(params, workspace))
    encoder = Encoder.load(workspace.model)
    check = make_periodic_evaluation(run, encoder.model)
    assert check is not None
    manifest = run.spec.manifest
    evaluation = Evaluation.run(params.evaluate, manifest, run.shards.direct_reader(), encoder, encoder)
    table = Folds().evaluate(evaluation)
    assert table is not None
    assert (table.overall["folds"].value, table.overall["left_out"].value) == (4, 4)
    assert check.score()[IN_FOLDS] == pytest.approx(table.overall["rsum"].value)
    assert valid_folds.describe(params, manifest) == [
        f"retrieval in folds of {FOLD} too: each of 2 checks embeds all captions of {2 * VALID} validation pairs"
    ]


def test_folds_of_some_pictures_are_none(workspace: Workspace) -> None:
    manifest = Manifest.load(workspace.manifest)
    few = recipe(f"evaluate.folds={FOLD}", f"train.valid_pairs={2 * VALID - 1}")
    assert not valid_folds.scores_folds(few, manifest)
    (said,) = valid_folds.describe(few, manifest)
    assert said.endswith(f"train.valid_pairs {2 * VALID - 1}, divided over the sources, has them from {2 * VALID} on")
    for settled in ("evaluate.folds=0", f"evaluate.folds={VALID + 1}"):
        none = recipe(settled, "train.valid_pairs=1000")
        assert not valid_folds.scores_folds(none, manifest)
        assert valid_folds.describe(none, manifest) == []
