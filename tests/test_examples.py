"""The examples run as their docstrings say, and come to what they promise."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zerovl
from tests.support.paths import ROOT
from tests.support.raw_sources import encoded, picture, sample, write_tar
from tests.support.tiny_project import TRAIN, make_project
from zerovl.workspace import Workspace

EXAMPLES = ROOT / "examples"
BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"


def run_example(name: str, *arguments: str, cwd: Path, status: int = 0) -> str:
    """What an example prints, run as a process of its own outside the project's folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def test_every_example_is_run_here_and_says_how_to_run_it() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'run_example("{path.name}"' in tests
        assert f"python examples/{path.name}" in path.read_text(encoding="utf-8").split('"""')[1]


def test_the_loss_in_a_loop_of_ones_own_learns(tmp_path: Path) -> None:
    lines = run_example("loss_in_your_own_loop.py", cwd=tmp_path).splitlines()
    losses = [float(found[1]) for line in lines if (found := re.search(r"loss ([\d.]+)", line))]
    assert len(losses) == 7
    assert losses[-1] < losses[0] / 10
    assert int(lines[-1].partition("%")[0]) >= 95  # of the captions find their picture; by chance 1 of 2,048


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_project(tmp_path_factory.mktemp("project"))


def test_a_pipeline_of_ones_own_feeds_the_training(workspace: Workspace) -> None:
    for tar in range(2):
        members = []
        for number in range(8):
            members += sample(f"{tar}{number}", number, "a long enough caption" if number else "too short")
        write_tar(workspace.root / f"tars/{tar}.tar", members)
    lines = run_example("own_pipeline.py", "tars/{0..1}.tar", cwd=workspace.root).splitlines()
    assert [line.partition(", first pair ")[0] for line in lines[:3]] == [
        f"step {step}: images (8, 3, 32, 32)" for step in range(3)
    ]
    (left_out,) = lines[3:]
    assert re.fullmatch(r"left out: \d x caption of fewer than four words", left_out)


def test_a_sampler_of_ones_own_feeds_the_loader(workspace: Workspace) -> None:
    lines = run_example("your_own_sampler.py", cwd=workspace.root).splitlines()
    assert TRAIN >= 8  # pairs of each source a batch
    assert len(lines) == 3
    for step, line in enumerate(lines):
        assert line.startswith(f"step {step}: images (16, 3, 32, 32), tokens (16, ")
        assert line.endswith("pairs {'alpha': 8, 'beta': 8}")


def test_search_a_folder_ranks_its_pictures(tmp_path: Path) -> None:
    for seed in range(4):
        (tmp_path / f"{seed}.png").write_bytes(encoded(picture(seed), "PNG"))
    (tmp_path / "notes.txt").write_text("no picture")
    shutil.copytree(BUNDLE, tmp_path / "model")
    printed = run_example("search_a_folder.py", "model", "two green hearts", ".", cwd=tmp_path).splitlines()

    model = zerovl.load(str(BUNDLE), device="cpu")
    pictures = [tmp_path / f"{seed}.png" for seed in range(4)]
    cosines = (model.encode_text(["two green hearts"]) @ model.encode_image(pictures).T)[0]
    order = cosines.argsort(descending=True).tolist()
    assert [line.split() for line in printed] == [[f"{cosines[row]:.4f}", f"{row}.png"] for row in order]


def test_search_a_folder_says_what_is_not_there(tmp_path: Path) -> None:
    said = run_example("search_a_folder.py", "nowhere", "two green hearts", ".", cwd=tmp_path, status=1)
    assert said.startswith("search_a_folder: ")
    assert "nowhere" in said
