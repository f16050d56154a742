"""`kill -9` at random moments, during saves too: the weights at the end are those of a run that nobody touched."""

import random
from pathlib import Path

import pytest

from tests.support.kills import Death, Run, random_kills, train_and_kill
from tests.support.tiny_project import copy_project, make_project, run_folder, set_params
from zerovl.workspace import Workspace

KILLS = {1: 20, 2: 4}  # by ranks


def weights(workspace: Workspace) -> bytes:
    return (workspace.model / "model.safetensors").read_bytes()


def check(whole: Workspace, killed: Workspace, deaths: list[Death]) -> None:
    assert weights(killed) == weights(whole)
    reached = [max(death.steps, default=0) for death in deaths]
    assert reached == sorted(reached)  # no kill costs a checkpoint that was whole
    assert not any(death.broken for death in deaths)
    left = sorted(path.name for path in (run_folder(killed) / "checkpoints").iterdir())
    assert left == ["step-00000149", "step-00000150"]


@pytest.mark.slow
def test_killed_again_and_again_ends_bit_equal(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    set_params(project, "train.epochs=25.0", "machine.checkpoint_steps=1", "train.valid_checks=0")
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    rng = random.Random(seed)
    pairs = []
    runs = []
    for ranks, count in KILLS.items():
        pair = copy_project(project, tmp_path / f"whole-{ranks}"), copy_project(project, tmp_path / f"killed-{ranks}")
        runs += [Run(str(pair[0].root), ranks, []), Run(str(pair[1].root), ranks, random_kills(count, ranks, rng))]
        pairs.append(pair)
    deaths = train_and_kill(runs)[1::2]
    assert [len(each) for each in deaths] == list(KILLS.values())
    for pair, each in zip(pairs, deaths, strict=True):
        check(*pair, each)
    assert any(death.leftovers for each in deaths for death in each)  # kills came within saves
