"""The folders and files that stages hand on: their names stand in `zerovl/workspace.py` alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT
from zerovl.registry import release_files
from zerovl.workspace import RUN_DESCRIPTION, RUN_LOG, Workspace

SOURCES = sorted({*(ROOT / "zerovl").rglob("*.py"), *(ROOT / "flows").rglob("*.py")})
# Beside the one place: what a release calls the files that it takes along, and a copied checkpoint its own manifest.
OWN = {"zerovl/workspace.py", "zerovl/registry/release_files.py", "zerovl/training/copied_checkpoints.py"}


def names() -> set[str]:
    """The files that a `Workspace` knows, and those of a run's folder."""
    known = (name for name, value in vars(Workspace).items() if isinstance(value, property))
    files = {path.name for name in known if (path := getattr(Workspace(), name)).suffix}
    return {RUN_DESCRIPTION, RUN_LOG, *files} - {"index.html"}  # which is also DVC's


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Whole strings of a module, so no sentence or docstring that tells of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield node.lineno, node.value


def test_names_of_files_are_known() -> None:
    expected = {"manifest.json", "verdict.json", "metrics.json", "queries.parquet", "report.html", "release.json"}
    assert expected < names()
    assert release_files.METRICS in names()


def test_a_file_that_stages_hand_on_is_named_in_one_place() -> None:
    known, elsewhere = names(), []
    for path in SOURCES:
        if (file := path.relative_to(ROOT).as_posix()) not in OWN:
            elsewhere += [f"{file}:{line}: {text}" for line, text in strings(path) if Path(text).name in known]
    assert elsewhere == []
