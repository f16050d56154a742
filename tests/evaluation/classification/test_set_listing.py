"""A set that changed is seen by `zerovl code`, whose file the stage evaluate depends on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.labelled_sets import write_folder, write_shards
from zerovl.commands import code
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.listing import listing_digest
from zerovl.params import ClassificationParams
from zerovl.params_file import from_recipe, write
from zerovl.workspace import Workspace

KEY = "evaluate.classification mine"


def write_csv(folder: Path) -> Path:
    write_folder(folder)
    paths = sorted(folder.rglob("*.png"))
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in paths]
    (folder / "set.csv").write_text("\n".join(["image,class", *rows]))
    return folder / "set.csv"


@pytest.mark.parametrize(
    ("kind", "make", "changed"),
    [
        ("folder", write_folder, "colour_250_10_20/0.png"),
        ("csv", write_csv, "colour_250_10_20/0.png"),
        ("csv", write_csv, "set.csv"),
        ("shards", write_shards, "classnames.txt"),
        ("shards", write_shards, "test/0.tar"),
    ],
)
def test_a_changed_file_changes_the_digest(
    kind: str, make: Callable[[Path], Path], changed: str, tmp_path: Path
) -> None:
    its = ClassificationParams.model_validate({"name": "a", kind: str(make(tmp_path / "set"))})
    before = listing_digest(its)
    assert listing_digest(its) == before
    with open(tmp_path / "set" / changed, "ab") as file:
        file.write(b"\n")
    assert listing_digest(its) != before


def test_the_evaluate_stage_depends_on_it_and_no_other(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    folder = write_folder(tmp_path / "set")

    def written(*overrides: str) -> dict[str, dict[str, str]]:
        write(from_recipe({}, list(overrides), "test"), tmp_path / "params.yaml", head="")
        code.write(workspace)
        return {path.stem: json.loads(path.read_text()) for path in workspace.code_report.iterdir()}

    without, given = written(), f"evaluate.classification=[{{name: mine, folder: {folder}}}]"
    before = written(given)
    evaluated = before.pop("evaluate")
    assert evaluated.keys() - without.pop("evaluate").keys() == {KEY}
    assert before == without
    (folder / "new").mkdir()
    (folder / "new" / "a.png").write_bytes(b"x")
    assert written(given)["evaluate"][KEY] != evaluated[KEY]
    with pytest.raises(ZeroVLError, match="absent: no such folder; get the set"):
        written(f"evaluate.classification=[{{name: mine, folder: {tmp_path / 'absent'}}}]")
