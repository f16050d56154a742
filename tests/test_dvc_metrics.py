"""`metrics:` and `plots:` of dvc.yaml, as the real `dvc` shows them.

Metrics: RSUM first, numbers alone, in a terminal of 100 columns, of 120 for plain `dvc exp show`. Plots: a page that
needs no network, ignored by git.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.versioned import versioned_environment
from zerovl import params_file
from zerovl.evaluation.score_file import compared_numbers, read_final_loss
from zerovl.files import write_json

COLUMNS = 100
Run = Callable[..., str]
SCORES = "reports/evaluation/scores.json"
LOSSES = "reports/training/plots/metrics/loss.tsv"


def metrics_of(rsum: float) -> dict[str, object]:
    """As evaluate writes it for three sources and a second evaluator, digests included."""
    block = {
        "images": 600,
        "captions": 1192,
        "i2t_r1": 75.1667,
        "i2t_r5": 98.8333,
        "t2i_r1": 76.9765,
        "rsum": rsum,
        "rsum_low": rsum - 5.51234,
        "rsum_high": rsum + 5.51234,
        "chance_rsum": 15.9417,
    }
    return {
        "mean": block,
        "overall": {**block, "rsum": 1.0},
        "sources": dict.fromkeys(("board", "photo", "poster"), block),
        "evaluation_digest": "a" * 64,
        "model_digest": "b" * 64,
        "evaluators": {"classes": {"overall": {"top1": 61.23456, "top1_low": 1.0, "top1_high": 99.0, "top5": 90.0}}},
    }


@dataclass(frozen=True)
class Project:
    """A project with our metrics and parameters: a commit, and an experiment on it."""

    run: Run  # git or dvc in it
    terminal: Run  # the same with a terminal for its output
    after_one_run: str  # what `make experiments` showed before there was an experiment


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Make the project; the experiment has another learning rate."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path_factory.mktemp("metrics")
    project = folder / "project"
    project.mkdir()
    environment = versioned_environment(folder) | {"COLUMNS": str(COLUMNS)}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def terminal(*words: str) -> str:
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as shown, os.fdopen(theirs, "wb") as output:
            found = subprocess.Popen(words, cwd=project, env=environment, stdout=output, stderr=subprocess.DEVNULL)
            output.close()
            text = b"".join(iter(lambda: _read(shown), b"")).decode()
            assert found.wait() == 0, f"{words}:\n{text}"
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    ours = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    stage = {name: ours["stages"]["evaluate"][name] for name in ("params", "outs")}
    sections = sorted({name for its in ours["stages"].values() for name in its.get("params", ())})
    stages = {
        "train": {"cmd": "true", "params": sections, "outs": ["reports/training"]},
        "evaluate": {"cmd": "true", "params": ["train"], "outs": stage["outs"]},
    }
    described = {"stages": stages, "metrics": ours["metrics"], "plots": ours["plots"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump(described))
    for name in (".gitignore", ".dvc/config"):
        shutil.copy(ROOT / name, project / name)
    shutil.copytree(ROOT / ".dvc" / "plots", project / ".dvc" / "plots")
    for rsum, lr in ((550.80912, 1e-3), (541.2, 3e-3)):
        params_file.write(params_file.from_recipe({}, [f"train.lr={lr}"], "test"), project / "params.yaml")
        write_json(project / "reports" / "evaluation" / "metrics.json", metrics_of(rsum))
        write_json(project / SCORES, compared_numbers(metrics_of(rsum), 1.18700879))
        (project / LOSSES).parent.mkdir(parents=True, exist_ok=True)
        (project / LOSSES).write_text("step\tloss\n" + "".join(f"{step}\t{3 - lr * step}\n" for step in range(40)))
        run("dvc", "commit", "--quiet", "--force", "train", "evaluate")
        if rsum == 550.80912:
            run("git", "add", "--all")
            run("git", "commit", "--quiet", "-m", "first")
            after_one_run = run(*make_experiments())
        else:
            run("dvc", "exp", "save", "--name", "higher-lr")
    return Project(run, terminal, after_one_run)


@pytest.fixture(scope="module")
def dvc(project: Project) -> Run:
    """Run git or dvc in the project."""
    return project.run


def make_experiments() -> list[str]:
    """Return the words of the command that `make experiments` runs, with its output as it is."""
    rule = (ROOT / "Makefile").read_text().partition("\nexperiments:")[2]
    return [*shlex.split(rule.splitlines()[1].replace("$$", "$")), "--no-pager"]


def _read(terminal: io.RawIOBase) -> bytes:
    """Read what is there; nothing at the end, which Linux says by an error."""
    try:
        return terminal.read(65536) or b""
    except OSError:
        return b""


def test_show_has_the_headline_first_and_fits(dvc: Run) -> None:
    lines = dvc("dvc", "metrics", "show").rstrip().splitlines()
    heads = lines[0].split()
    assert heads[:2] == ["Path", "RSUM"]
    assert set(heads[2:]) == {"classes.top1", "i2t_r1", "loss", "t2i_r1"}
    assert lines[1].split()[:2] == [SCORES, "541.2"]
    assert max(map(len, lines)) <= COLUMNS


def test_diff_has_the_headline_first_and_fits(dvc: Run) -> None:
    lines = dvc("dvc", "metrics", "diff").rstrip().splitlines()
    assert lines[1].split() == [SCORES, "RSUM", "550.81", "541.2", "-9.61"]
    assert max(map(len, lines)) <= COLUMNS


def test_experiments_have_the_headline_first_and_fit(dvc: Run) -> None:
    shown = dvc(*make_experiments())
    lines = [line.rstrip() for line in shown.rstrip().splitlines()]
    heads = next(line for line in lines if "Experiment" in line).split()
    assert heads[:3] == ["Experiment", "Created", "RSUM"]
    assert heads[-1] == "train.lr"
    row = next(line for line in lines if "higher-lr" in line)
    assert "541.2" in row
    assert "0.003" in row
    assert max(map(len, lines)) <= COLUMNS


def test_experiments_have_the_scores_where_there_is_one_run_alone(project: Project) -> None:
    """`--only-changed` alone leaves out every number that all rows share."""
    heads, row = (
        next(line for line in project.after_one_run.splitlines() if word in line).split()
        for word in ("Experiment", "workspace")
    )
    assert heads == ["Experiment", "Created", "RSUM", "i2t_r1", "t2i_r1", "classes.top1", "loss"]
    assert row[2:] == ["550.81", "75.17", "76.98", "61.23", "1.187"]


def test_plain_experiments_in_a_terminal_have_every_score_in_its_first_screen(project: Project) -> None:
    """DVC's pager shows the columns of all parameters behind them, by the arrow keys; `cat` stands for it here."""
    shown = project.terminal("env", "DVC_PAGER=cat", "dvc", "exp", "show")
    heads = next(line for line in shown.splitlines() if "Experiment" in line)
    assert len(heads) > 500
    assert heads[:120].split()[:7] == ["Experiment", "Created", "RSUM", "i2t_r1", "t2i_r1", "classes.top1", "loss"]


def test_curves_of_two_revisions_open_offline_and_leave_git_alone(dvc: Run) -> None:
    before = dvc("git", "status", "--porcelain")
    path = Path(dvc("dvc", "plots", "diff", "HEAD", "--targets", LOSSES).strip().removeprefix("file://"))
    assert dvc("git", "status", "--porcelain") == before
    page = path.read_text()
    assert page.count("vegaEmbed(") == 2  # the function and its call
    assert "cdn" not in page
    assert re.findall(r"<script[^>]*src|<link|@import|url\(", page) == []
    assert "{plot_divs}" not in page

    browser = pytest.importorskip("tests.support.browser")
    if browser.CHROMIUM is None:
        pytest.skip("needs Chromium")

    with browser.open_browser() as shown:
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(path.as_uri())
        assert shown.locator("polyline.line").count() == 2
        assert sorted(shown.locator("figcaption span").all_inner_texts()) == ["HEAD 2.961", "workspace 2.883"]
        browser.keep(shown, "dvc-plots")
        assert asked == [path.as_uri()]


def test_numbers_are_few_and_numbers() -> None:
    numbers = compared_numbers(metrics_of(550.80912), None)
    assert list(numbers) == ["RSUM", "i2t_r1", "t2i_r1", "classes.top1"]
    assert (numbers["RSUM"], numbers["classes.top1"]) == (550.81, 61.23)
    assert compared_numbers({"overall": {"rsum": 93.25}}, 0.5) == {"RSUM": 93.25, "loss": 0.5}


def test_the_final_loss_is_the_trainings(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    assert read_final_loss(path) is None
    path.write_text(json.dumps({"fingerprint": "x", "final_loss": 1.25}))
    assert read_final_loss(path) == 1.25
