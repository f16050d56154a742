"""`kill -9` at random moments, during saves too: the weights at the end are those of a run that nobody touched."""

import random
from pathlib import Path

import pytest

from tests.support.kills import Death, Run, random_kills, train_and_kill
from tests.support.tiny_project import copy_project, make_project, run_folder, set_params
from zerovl.workspace import Workspace

EPOCH = 6  # steps
# By ranks: kills, and epochs. A kill within a save leaves up to three new checkpoints, one at any time up to four, and
# more where a busy machine lets whoever kills wait: of the steps about a third are used.
RUNS = {1: (20, 16), 2: (4, 8)}


def weights(workspace: Workspace) -> bytes:
    return (workspace.model / "model.safetensors").read_bytes()


def check(whole: Workspace, killed: Workspace, deaths: list[Death], steps: int) -> None:
    assert weights(killed) == weights(whole)
    reached = [max(death.steps, default=0) for death in deaths]
    assert reached == sorted(reached)  # no kill costs a checkpoint that was whole
    assert not any(death.broken for death in deaths)
    left = sorted(path.name for path in (run_folder(killed) / "checkpoints").iterdir())
    assert left == [f"step-{step:08d}" for step in (steps - 1, steps)]


@pytest.mark.slow
def test_killed_again_and_again_ends_bit_equal(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    rng = random.Random(seed)
    pairs = []
    runs = []
    for ranks, (count, epochs) in RUNS.items():
        pair = copy_project(project, tmp_path / f"whole-{ranks}"), copy_project(project, tmp_path / f"killed-{ranks}")
        # Two micro-batches a rank: each more costs time and shows nothing more.
        settings = (f"train.epochs={epochs}.0", f"train.micro_batch={8 // ranks}", "train.valid_checks=0")
        set_params(pair[0], *settings, "machine.checkpoint_steps=1000")
        set_params(pair[1], *settings, "machine.checkpoint_steps=1")
        runs += [Run(str(pair[0].root), ranks, []), Run(str(pair[1].root), ranks, random_kills(count, ranks, rng))]
        pairs.append(pair)
    deaths = train_and_kill(runs)[1::2]
    for pair, each, (count, epochs) in zip(pairs, deaths, RUNS.values(), strict=True):
        assert len(each) == count
        check(*pair, each, epochs * EPOCH)
    assert any(death.leftovers for each in deaths for death in each)  # kills came within saves
