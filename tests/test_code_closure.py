"""A change reruns what it touches: the digests that DVC compares, and the fingerprint that resumes a run."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from zerovl import code_closure, syntax

STAGES = ["prepare", "validate", "train", "evaluate", "register"]
EVERY_STAGE = """
import json
from zerovl import code_closure
print(json.dumps({stage: code_closure.digests(stage) for stage in code_closure.STAGES}))
"""


def digests(root: Path) -> dict[str, dict[str, str]]:
    """Of the package under `root`, by a process of its own."""
    command = [sys.executable, "-c", EVERY_STAGE]
    done = subprocess.run(command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is, in a folder of its own."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copytree(ROOT / "zerovl", folder / "zerovl", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def before(original: Path) -> dict[str, dict[str, str]]:
    return digests(original)


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original / "zerovl", tmp_path / "zerovl", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "zerovl"


parse = cache(syntax.parse)  # by text: in each changed copy nearly all files are what they were


@pytest.fixture
def closure_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], dict[str, dict[str, str]]]]:
    """Gives the digests of a package in this process, which parses no text twice; else like `digests`."""
    kept = [getattr(code_closure, name) for name in ("imported", "module_of", "_counted", "_digest", "_modules")]

    def found(package: Path) -> dict[str, dict[str, str]]:
        monkeypatch.setattr(code_closure, "PACKAGE", package)
        monkeypatch.setattr(syntax, "parse", parse)
        for each in kept:
            each.cache_clear()
        return {stage: code_closure.digests(stage) for stage in STAGES}

    yield found
    for each in kept:
        each.cache_clear()


def stale(after: dict[str, dict[str, str]], before: dict[str, dict[str, str]]) -> list[str]:
    return [stage for stage in STAGES if after[stage] != before[stage]]


def add(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def comment_everywhere(copy: Path) -> None:
    for path in copy.rglob("*.py"):
        add(path, "\n# a remark\n")


def other_docstrings(copy: Path) -> None:
    for name in ("engine/trainer.py", "evaluation/bootstrap.py", "data/manifest.py"):
        path = copy / name
        tree = ast.parse(path.read_text())
        first = tree.body[0]
        assert isinstance(first, ast.Expr)
        lines = path.read_text().splitlines()
        path.write_text("\n".join(['"""Said otherwise."""', *lines[first.end_lineno :], ""]))


def junk(copy: Path) -> None:
    for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
        (folder / ".DS_Store").write_bytes(b"\0")
        (folder / ".trainer.py.swp").write_bytes(b"\0")
        (folder / "trainer.py~").write_bytes(b"x = 1")
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / "trainer-checkpoint.py").write_text("x = 1")


def new_version(copy: Path) -> None:
    path = copy / "__init__.py"
    path.write_text(path.read_text().replace("__version__ = ", "__version__ = '9.' + "))


def code_in(*names: str) -> Callable[[Path], None]:
    def change(copy: Path) -> None:
        for name in names:
            add(copy / name, "\n_ADDED = 1\n")

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (comment_everywhere, []),
        (other_docstrings, []),
        (junk, []),
        (new_version, []),
        (code_in("planning/plan.py", "planning/gpus.py", "planning/calibrate.py"), []),
        (code_in("commands/search.py", "commands/doctor.py", "commands/registry.py", "command_line/models.py"), []),
        (code_in("interop/original.py"), []),
        (code_in("distributed/watchdog.py", "training/launch.py", "training/start_block.py", "log.py"), []),
        (code_in("params/train.py", "params_file.py"), []),
        (code_in("data/raw/webdataset.py"), ["prepare"]),
        (code_in("data/validation/rules.py"), ["validate"]),
        (code_in("engine/trainer.py"), ["train"]),
        (code_in("engine/steps.py", "objective/tiled.py", "data/batches/sampling.py"), ["train"]),
        (code_in("model/dual_encoder.py"), ["train", "evaluate", "register"]),
        (code_in("evaluation/bootstrap.py"), ["evaluate", "register"]),
        (code_in("evaluation/metrics.py", "training/learning.py"), ["evaluate", "register"]),
        (code_in("evaluation/report/charts.py"), ["evaluate"]),
        (code_in("release/gate.py"), ["register"]),
        (code_in("release/current_holder.py", "registry/records.py", "evaluation/paired.py"), ["register"]),
        (code_in("comparison/differences.py", "commands/compare.py"), []),
        (lambda copy: add(copy / "evaluation" / "report" / "report.css", "p {}"), ["evaluate"]),
    ],
)
def test_a_change_makes_the_stages_stale_that_run_it(
    change: Callable[[Path], None],
    expected: list[str],
    copy: Path,
    before: dict[str, dict[str, str]],
    closure_of: Callable[[Path], dict[str, dict[str, str]]],
) -> None:
    change(copy)
    assert stale(closure_of(copy), before) == expected


def test_dvc_names_what_all_five_stages_run() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    drawn = yaml.safe_load((ROOT / "data" / "demo" / "dvc.yaml").read_text())["stages"]["draw"]
    written = {f"reports/code/{stage}.json" for stage in code_closure.STAGES}
    assert {name for out in stages["code"]["outs"] for name in out} == written
    assert stages["code"]["always_changed"]
    for stage in STAGES:
        assert [dep for dep in stages[stage]["deps"] if dep.startswith(("zerovl", "reports/code"))] == [
            f"reports/code/{stage}.json"
        ]
        assert stages[stage]["cmd"] == f"zerovl {stage}"
        assert code_closure.STAGES[stage] == f"zerovl.stages.{stage}"
        assert "machine" not in stages[stage]["params"]
    assert drawn["deps"] == ["reports/code/demo-data.json"]


def test_a_stage_s_code_is_what_its_process_imports() -> None:
    """The closure is read off the syntax: what Python then loads must be in it."""
    script = "import sys, {modules}; print(*[name for name in sys.modules if name.startswith('zerovl.')])"
    later = {"prepare": "", "register": ", zerovl.release.holder"}  # imported once there is a holder
    for stage in later:
        code = script.format(modules=code_closure.STAGES[stage] + later[stage])
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) - code_closure.modules(stage) <= code_closure.NOT_COUNTED.keys()


def test_what_decides_which_members_of_a_tar_are_pictures_counts_for_training(
    before: dict[str, dict[str, str]],
) -> None:
    assert "data/raw/records.py" in before["train"]
    assert "data/raw/tar_samples.py" not in before["train"]  # it groups members for prepare


def test_nothing_is_imported_by_a_name_that_is_computed() -> None:
    for path in (ROOT / "zerovl").rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {"__import__", "import_module", "importlib"}, path


def test_what_no_digest_holds_exists_and_has_a_reason() -> None:
    by_stage = (item for left_out in code_closure.NOT_COUNTED_FOR.values() for item in left_out.items())
    for module, reason in (*code_closure.NOT_COUNTED.items(), *by_stage):
        assert code_closure._file(module).is_file(), module
        assert reason
