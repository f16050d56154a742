"""The import rules of the design: one direction, and nothing heavy where it does not belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "zerovl"
# A package may import those of its own row and of the rows below it, as listed.
ALLOWED = {
    "data": {"data"},
    "model": {"model", "data"},
    "objective": {"objective"},
    "evaluation": {"evaluation", "registry", "model", "objective", "data"},
    "training": {"training", "evaluation", "model", "objective", "data"},
    "registry": {"registry"},
}
BASE = {"params", "errors", "files", "images", "workspace"}
ONLY_IN = {
    "great_expectations": {"data/validation.py"},
    "boto3": {"registry/s3_store.py", "data/s3_shards.py", "data/s3_source.py"},
    "botocore": {"registry/s3_store.py", "data/s3_shards.py", "data/s3_source.py"},
    "prefect": set(),
    "psutil": set(),
    "pandas": {"data/validation.py"},
}
BARE_NODE_FORBIDS = ("great_expectations", "boto3", "dvc", "dvclive", "prefect")
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    own = {name.split(".")[1] for name in imported(path) if name.startswith("zerovl.")}
    if len(relative.parts) > 1:
        package = relative.parts[0]
        reached = own & ALLOWED.keys()
        assert reached <= ALLOWED[package], f"{package} must not import {sorted(reached - ALLOWED[package])}"
        assert own - ALLOWED.keys() <= BASE, f"{package} must not import {sorted(own - ALLOWED.keys() - BASE)}"
    elif relative.stem in BASE:
        assert own <= BASE
    for library, places in ONLY_IN.items():
        if any(name.split(".")[0] == library for name in imported(path)):
            assert relative.as_posix() in places, f"{library} is not to be imported here"


def test_a_bare_gpu_node_needs_only_the_core_packages() -> None:
    modules = [
        "zerovl.training.worker",
        "zerovl.training.launch",
        "zerovl.evaluation.stage",
        "zerovl.evaluation.report",
        "zerovl.model.encoder",
        "zerovl.model.original",
    ]
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BARE_NODE_FORBIDS!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import {", ".join(modules)}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
