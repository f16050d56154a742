"""The floors of the house: imports run one way and never in a circle, nothing heavy lies where it does not belong."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from zerovl import code_closure, syntax

PACKAGE = ROOT / "zerovl"
BASE = {
    *("deep_colours", "descriptors", "disk_errors", "picture_reader", "tiff_planes"),
    "foreign_folders",
    *("bundle_digests", "bundle_files", "code_closure", "cores", "device", "errors", "experiment_copy", "files"),
    *("images", "log", "whole_folder"),
    "memory",
    *("gpu_leases", "gpu_names", "lease_files", "own_gpus", "shared_folder", "trials"),
    *(
        "heap",
        "interpreter",
        "kept_syntax",
        "lfs_pointers",
        "params_file",
        "parquet_files",
        "picture_looks",
        "processes",
        "s3",
        "s3_files",
        "syntax",
        "text_format",
        "version",
        "workspace",
        "yaml_file",
    ),
}
_ENGINE = {"engine", "objective", "distributed", "model"}
_TRAINING = {"training", "tracking", "sizing", *_ENGINE, "evaluation", "data"}
# What the modules of a folder may import beside the base; a folder higher up may import those below, as listed.
ALLOWED = {
    "params": set(),  # which all may import
    "data": {"data"},
    "model": {"model", "data"},
    "interop": {"interop", "model", "data"},
    "tracking": {"tracking"},
    "distributed": {"distributed"},
    "objective": {"objective", "distributed"},
    "engine": _ENGINE,
    "sizing": {"sizing", *_ENGINE},
    "evaluation": {"evaluation", "distributed", "model", "data"},
    "indexing": {"indexing", "evaluation", "model", "data"},
    "serving": {"serving", "indexing", "registry", "evaluation", "model", "data"},
    "training": _TRAINING,
    "planning": {"planning", *_TRAINING},
    "registry": {"registry"},
    "comparison": {"comparison", "release", "evaluation", "registry", "model", "data"},
    "release": {"release", "evaluation", "registry", "model", "data"},
    "stages": {"training", "release", "evaluation", "registry", "model", "data"},
    "commands": {
        *("commands", "planning", "comparison", "release", "interop", "serving", "indexing", "tracking"),
        *("evaluation", "registry", "model", "data", "zerovl"),
    },
    "command_line": {"command_line", "stages", "commands", "planning", "interop", "data", "zerovl"},
    "cli.py": {"command_line", "zerovl"},
    "__init__.py": {"model", "registry", "objective"},
}
ONLY_IN = {
    "great_expectations": {"data/validation/expectations.py"},
    "boto3": {"s3.py"},
    "botocore": {"s3.py"},
    "faiss": {"indexing/approximate.py"},
    "fcntl": {"files.py"},
    "fastapi": {"serving/app.py"},
    "uvicorn": {"serving/server.py"},
    "distributed": {"data/raw/cluster_packing.py"},
    "prefect": set(),
    "psutil": set(),
    "mlflow": {"tracking/mlflow_runs.py"},
    "wandb": {"tracking/wandb_runs.py"},
    "pandas": {"data/validation/expectations.py"},
}
BARE_NODE_FORBIDS = ("great_expectations", "boto3", "distributed", "dvc", "dvclive", "moto", "prefect")
# Of tests/support: the plugins of all tests, and what tests/gpu imports.
GPU_TESTS_USE = ("s3", "registries", "device_runs", "encoded", "towers", "pairs", "tiny_project", "real_world")
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def libraries(path: Path) -> set[str]:
    """Top-level names of all packages that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@cache
def all_imports(path: Path) -> set[str]:
    """As `code_closure.imported`, those for type checkers too."""
    source = path.read_text(encoding="utf-8").replace("if TYPE_CHECKING:", "if True:")
    names = set(syntax.imports(ast.parse(source)))
    return {code_closure.module_of(name) for name in names if name == "zerovl" or name.startswith("zerovl.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    floor = relative.parts[0]
    own = {(*name.split("."), "zerovl")[1] if "." in name else "zerovl" for name in all_imports(path)}
    above = set() if relative.stem in BASE and len(relative.parts) == 1 else ALLOWED[floor]
    allowed = above | BASE | {"params"}
    assert own <= allowed, f"{relative} must not import {sorted(own - allowed)}"
    for library in libraries(path) & ONLY_IN.keys():
        assert relative.as_posix() in ONLY_IN[library], f"{library} is not to be imported here"


def test_every_folder_has_its_place() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {name for name in ALLOWED if not name.endswith(".py")}
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"cli", "__init__"} == BASE


def test_nothing_imports_in_a_circle() -> None:
    """Imports inside functions count: they hide a circle and do not remove it."""
    graph = {
        module_of(path): {name for name in all_imports(path) if name != module_of(path)}
        for path in FILES
        if path.name != "__init__.py" or path.read_text().strip()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for name in sorted(graph.get(module, ())):
                visit(name, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_a_bare_gpu_node_needs_only_the_core_packages() -> None:
    modules = [
        "zerovl.training.one_rank",
        "zerovl.training.worker",
        "zerovl.training.launch",
        "zerovl.stages.evaluate",
        "zerovl.evaluation.report.page",
        "zerovl.model.encoder",
        "zerovl.interop.original",
        # and the tests that run there
        *(f"tests.{name}" for name in ("conftest", *(f"support.{each}" for each in GPU_TESTS_USE))),
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
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
