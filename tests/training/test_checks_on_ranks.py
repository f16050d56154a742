"""What is scored during training is the same to the last digit on any number of ranks, with a sharded model too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_world import png
from tests.support.rank_groups import run_groups
from tests.support.tiny_project import make_project, recipe
from zerovl.distributed.ranks import Ranks
from zerovl.engine.sharding import shard
from zerovl.model.towers import build
from zerovl.training import passes, periodic_evaluation, valid_sets
from zerovl.training.run_spec import Run, make_spec
from zerovl.workspace import Workspace


def scored(ranks: Ranks, root: Path, sharded: bool) -> tuple[dict[str, float], int]:
    """Return the scores of a new model, and how many pictures went through this rank's tower."""
    for module in (passes, periodic_evaluation, valid_sets):
        module.PASS = 3  # type: ignore[attr-defined]
    measured = "measures: [zero_shot, linear_probe]"
    sets = f"evaluate.classification=[{{name: colours, folder: {root / 'set'}, {measured}}}]"
    params = recipe("train.valid_set_pictures=100", "train.valid_pairs=16", "evaluate.folds=4", sets)
    workspace = Workspace(root)
    run = Run(params, workspace, ranks, make_spec(params, workspace))
    model = build(params.model, run.spec.tokenizer.vocab_size, seed=5).eval()
    if sharded:
        shard(model, ranks)
    rows = list[int]()
    model.image_tower.register_forward_pre_hook(lambda _tower, inputs: rows.append(len(inputs[0])))
    evaluation = periodic_evaluation.make_periodic_evaluation(run, model)
    assert evaluation is not None
    return evaluation.score(), sum(rows)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project, and a set of two classes of which five pictures in a row, a whole pass among them, are broken."""
    workspace = make_project(tmp_path_factory.mktemp("checks") / "project")
    for number in range(14):
        folder = workspace.root / "set" / ("red" if number < 7 else "blue")
        folder.mkdir(parents=True, exist_ok=True)
        whole = png((250 - 9 * number, 10, 9 * number), side=40)
        (folder / f"{number:02d}.png").write_bytes(b"" if 7 <= number < 12 else whole)
    return workspace


def test_scores_do_not_depend_on_the_number_of_ranks(project: Workspace) -> None:
    jobs = [(count, scored, (project.root, count == 3)) for count in (1, 2, 3)]
    alone, two, sharded = run_groups(jobs)
    assert alone.statuses == [0], alone.said
    ((expected, pictures),) = alone.results
    further = {"valid_folds_rsum", "valid_colours_top1", "valid_colours_probe_top1"}
    assert {"valid_rsum", *further} <= expected.keys()
    for group in (two, sharded):
        assert not any(group.statuses), group.said
        assert [found for found, _ in group.results] == [expected] * len(group.results)
    shares = [own for _, own in two.results]
    assert sum(shares) == pictures == 16 + 9
    assert min(shares) > 0
