"""`dvc.yaml` names the code that makes a stage's outputs, so that a change of it reruns the stage."""

import ast

import pytest
import yaml

from tests.support.paths import ROOT

FRAME = {f"zerovl/{name}.py" for name in ("__init__", "errors", "files", "params", "workspace")}
# They bring the same bytes here; a change of the manifest reruns `prepare`.
CARRIERS = {f"zerovl/data/{name}.py" for name in ("manifest", "s3_shards", "workers")}
TRAINING_ONLY = {f"zerovl/data/{name}.py" for name in ("augment", "captions", "randomness", "sampling")}


def code_of(*starts: str) -> set[str]:
    """Files of `zerovl/` that the modules at `starts` import, directly or not, and themselves."""
    found: set[str] = set()
    open_ = [str(path.relative_to(ROOT)) for start in starts for path in ROOT.glob(start)]
    while open_:
        name = open_.pop()
        if name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            paths = [f"{module.replace('.', '/')}.py" for module in modules if module.startswith("zerovl.")]
            open_ += [path for path in paths if (ROOT / path).is_file()]
    return found - FRAME


@pytest.mark.parametrize(
    ("stage", "starts", "aside"),
    [
        ("prepare", ["zerovl/data/raw/prepare.py"], set()),
        ("validate", ["zerovl/data/validation/expectations.py"], set()),
        ("train", ["zerovl/model/*.py", "zerovl/objective/*.py", "zerovl/data/batches/loader.py"], CARRIERS),
        ("evaluate", ["zerovl/stages/evaluate.py"], CARRIERS | TRAINING_ONLY),
    ],
)
def test_the_code_of_a_stage_is_among_its_dependencies(stage: str, starts: list[str], aside: set[str]) -> None:
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    code = code_of(*starts) - aside
    assert {name for name in code if not any(f"{name}/".startswith(f"{dep}/") for dep in listed)} == set()


def test_caches_of_python_are_no_dependency() -> None:
    """DVC hashes folders of code whole: a `.pyc` that a test wrote must not rerun the training."""
    assert "__pycache__" in (ROOT / ".dvcignore").read_text().splitlines()
