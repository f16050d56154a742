"""Experiments that DVC runs in temporary copies: the copy's code, run state and releases of the main checkout."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from dvc.utils.hydra import get_hydra_sweeps

from tests.support.factory import SLOW_STEPS
from tests.support.finished_pipeline import write_pipeline
from tests.support.paths import ROOT
from tests.support.prefect_api import wait_for
from tests.support.tiny_project import make_project, run_folder, set_params
from tests.support.versioned import make_dvc_project, versioned_environment
from zerovl import experiment_copy, params_file
from zerovl.registry import fetch
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore
from zerovl.release import promote as promoting
from zerovl.stages import register
from zerovl.workspace import Workspace, main_checkout

Run = Callable[..., str]
PAGE = ROOT / "docs" / "experiments.md"
MARK = 'print("the code of the commit")\n'


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A temporary copy inside a main checkout, as DVC makes one."""
    main = tmp_path / "main"
    folder = main / ".dvc" / "tmp" / "exps" / "tmp1234"
    folder.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(main))
    monkeypatch.chdir(folder)
    return Workspace()


@pytest.mark.usefixtures("registry_environment")
def test_releases_and_runs_of_a_copy_are_those_of_the_main_checkout(
    copy: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promoting, "check_release", lambda folder: "")
    monkeypatch.setenv("ZEROVL_CACHE", "cache")
    main = tmp_path / "main"
    write_pipeline(copy)
    settings = params_file.from_recipe({}, ["register.store=../store"], "test")
    params_file.write(settings, "params.yaml")
    register.run(settings, copy)
    assert Registry(FolderStore(tmp_path / "store")).current("zerovl", "production") is not None
    assert fetch.default_store() == str(main / "../store")
    assert (main / "cache").is_dir()
    assert copy.runs == main / "runs"
    assert not list(Path().glob("*/runs")) + list(Path().glob("store"))


def test_elsewhere_a_checkout_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert main_checkout(tmp_path) is None
    assert main_checkout(tmp_path / "another") is None
    assert Workspace(tmp_path).runs == tmp_path / "runs"
    monkeypatch.delenv("DVC_ROOT")
    assert main_checkout(tmp_path / ".dvc" / "tmp" / "exps" / "x") is None
    assert Workspace().runs == Path("runs")


def test_what_params_name_and_no_one_tracks_is_linked(copy: Workspace, tmp_path: Path) -> None:
    main = tmp_path / "main"
    for place in ("towers/text", "data/start/big", "sets/animals", "judge", "eye", "packed", "cache"):
        (main / place).mkdir(parents=True)
    (main / "towers" / "image.safetensors").write_text("weights")
    Path("data").mkdir()
    values = {
        "model": {"image_tower": {"weights": "towers/image.safetensors"}, "text_tower": {"name": "towers/text"}},
        "prepare": {"filters": {"agreement": {"model": "judge"}, "semantic_duplicates": {"model": "eye"}}},
        "train": {"init_from": "data/start/big"},
        "machine": {"shards": "packed", "shard_cache": {"folder": "cache"}},
        "evaluate": {"classification": [{"folder": "sets/animals", "classnames": "../outside.txt"}, "broken"]},
    }
    (tmp_path / "main" / ".." / "outside.txt").write_text("a")
    experiment_copy.link_named_files(values, main, Path())
    assert Path("towers/image.safetensors").read_text() == "weights"
    assert Path("data/start").is_symlink()
    assert Path("sets/animals").is_dir()
    assert {path.name for path in Path().iterdir()} == {
        *("cache", "data", "eye", "judge", "packed", "sets", "towers"),
    }
    experiment_copy.link_named_files({"model": 3}, main, Path())  # what is wrong is the command's to say


def test_the_choice_on_the_page_is_five_experiments() -> None:
    """As DVC reads it for `--queue`; the last test runs a task of the queue."""
    page = PAGE.read_text(encoding="utf-8")
    [choice] = re.findall(r"dvc exp run --queue --name lr -S '(.*?)'", page)
    queued = [each["params.yaml"] for each in get_hydra_sweeps({"params.yaml": [choice]})]
    rates = [params_file.from_recipe({}, changes, "demo").train.lr for changes in queued]
    assert rates == [3e-4, 5e-4, 2e-3, 3e-3, 5e-3]


# -- with DVC


@pytest.mark.timeout(600)
def test_an_experiment_that_is_asked_to_registers_beside_the_main_checkout(tmp_path: Path) -> None:
    """In the workspace and in a copy; one that is not asked to registers nothing. Then DVC's queue, and `apply`."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    root, store = tmp_path / "project", tmp_path / "store"
    write_pipeline(Workspace(root))
    changes = ["register.store=../store", "register.gate.min_rsum=590"]  # refused: nobody loads what is no model
    params_file.write(params_file.from_recipe({}, changes, "test"), root / "params.yaml")
    stage = {
        "cmd": f"{sys.executable} -m zerovl.cli register",
        "params": ["register"],
        "outs": ["reports/release.json"],
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"register": stage}}))
    environment = versioned_environment(tmp_path) | {"ZEROVL_CACHE": str(tmp_path / "cache")}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def releases() -> list[tuple[str, int]]:
        registry = Registry(FolderStore(store))
        return [(name, number) for name in registry.names() for number in registry.numbers(name)]

    run("git", "init", "--quiet")
    make_dvc_project(root)
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "-m", "first")
    assert "nothing is registered: it is the experiment tried of DVC" in run("dvc", "exp", "run", "--name", "tried")
    assert not store.exists()
    asked = ("-S", "register.when=always", "-S")
    run("dvc", "exp", "run", "--name", "here", *asked, "register.name=here")
    assert releases() == [("here", 1)]
    run("dvc", "exp", "run", "--temp", "--name", "apart", *asked, "register.name=apart")
    assert releases() == [("apart", 1), ("here", 1)]
    [queue] = re.findall(r"^\$ (dvc exp run --queue .*?)   #", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    run(*shlex.split(queue))
    queued = run("dvc", "queue", "status")
    assert sorted(re.findall(r"(lr-\d) .*Queued", queued)) == [f"lr-{number}" for number in range(1, 6)]
    run("dvc", "exp", "apply", "apart")
    assert params_file.load(root / "params.yaml").register_.name == "apart"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A training, which a file makes slow, and the stage `register`, with data and code in git."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    workspace = make_project(tmp_path_factory.mktemp("experiments") / "project")
    root = workspace.root
    set_params(workspace, "data.raw=raw", "train.epochs=2.0")
    shutil.copytree(ROOT / "zerovl", root / "zerovl", ignore=shutil.ignore_patterns("__pycache__"))
    with open(root / "zerovl" / "log.py", "a") as file:
        file.write(MARK)
    with open(root / "zerovl" / "engine" / "trainer.py", "a") as file:
        file.write(SLOW_STEPS)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    ours = {name: {key: stages[name][key] for key in ("cmd", "params", "outs")} for name in ("train", "register")}
    ours["register"]["deps"] = ["model"]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": ours}))
    (root / ".gitignore").write_text(
        "/model/\n/reports/training/\n/reports/release.json\n/runs\n/registry\n/slow-from-step\n"
    )
    return workspace


@pytest.fixture(scope="module")
def run(project: Workspace) -> Run:
    """Run git or dvc in the project; the first `zerovl` on the path has the code of this project, as installed."""
    environment = versioned_environment(project.root.parent) | {"PYTHONPATH": str(ROOT)}
    environment["ZEROVL_ROOT"] = str(project.root)  # where the file that makes it slow is looked for

    def run(*words: str) -> str:
        # To a file: what goes on in the background would keep a pipe open.
        with open(project.root.parent / "said", "w+") as file:
            done = subprocess.run(words, cwd=project.root, env=environment, stdout=file, stderr=file, check=False)
            file.seek(0)
            said = file.read()
        assert done.returncode == 0, f"{words}:\n{said}"
        return said

    run("git", "init", "--quiet")
    make_dvc_project(project.root)
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "-m", "first")
    return run


def trainings_in_copies(project: Workspace) -> list[psutil.Process]:
    """Trainings of the queue: their `zerovl train` becomes `python -m zerovl.cli train`, with the code of the copy."""
    copies, found = str(project.root / ".dvc" / "tmp" / "exps"), []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cwd().startswith(copies) and "train" in process.cmdline():
                found.append(process)
    return found


def queue_worker(project: Workspace) -> list[psutil.Process]:
    """What `dvc queue start` leaves in the background; it ends by itself when it has nothing to do."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("ZEROVL_ROOT") == str(project.root) and "queue-worker" in process.cmdline():
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_task_of_the_queue_goes_on_where_it_was_killed(project: Workspace, run: Run) -> None:
    """With the code that it was queued with; nothing is registered, and a temporary run says so too."""
    # DVC queues the checkout as it is, so what is edited afterwards is not what runs.
    again = ["dvc", "exp", "run", "--queue", "--name", "higher-lr", "-S", "train.lr=0.002"]
    run(*again)
    (project.root / "zerovl" / "log.py").write_text("edited since, and broken")
    (project.root / "slow-from-step").write_text("4")
    try:
        run("dvc", "queue", "start")
        wait_for("a checkpoint of the queue's task", lambda: list(project.runs.glob("*/checkpoints/step-*3")), 300)
        killed = run_folder(project)
        trainings = trainings_in_copies(project)
        assert trainings
        for process in trainings:
            process.kill()
        wait_for("the end of the queue's worker", lambda: not queue_worker(project), 300)
    finally:  # whatever failed: neither lives on in the background
        for process in [*queue_worker(project), *trainings_in_copies(project)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    (project.root / "slow-from-step").unlink()
    run("git", "checkout", "--", "zerovl")
    run(*again)
    said = run("dvc", "exp", "run", "--run-all", "--jobs", "1")
    assert "the code of the commit" in said
    assert "resumes after step" in said, said
    assert run_folder(project) == killed  # the only one, in the main checkout
    assert "nothing is registered: it is the experiment higher-lr of DVC" in said
    said = run("dvc", "exp", "run", "--temp", "--name", "other", "-S", "train.lr=0.002", "-S", "register.name=other")
    assert "    zerovl registry add other" in said
    assert not (project.root / "registry").exists()
    assert not list((project.root / ".dvc" / "tmp" / "exps").glob("*/params.yaml"))
    assert run("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split() == ["higher-lr", "other"]
