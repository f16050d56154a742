"""Which parameters differ between a run, which says what "auto" came to, and a file that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerovl.comparison.opening import open_subject
from zerovl.comparison.parameters import differing
from zerovl.comparison.subject import Subject
from zerovl.files import write_json
from zerovl.params import Params, as_dict
from zerovl.workspace import RUN_DESCRIPTION, Workspace

POOLING = "model.text_tower.pooling"


def run(root: Path, name: str, **pooling: str) -> Subject:
    model: dict[str, Any] = as_dict(Params().model)
    model["text_tower"] = {key: value for key, value in model["text_tower"].items() if key != "pooling"} | pooling
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    write_json(folder / RUN_DESCRIPTION, {"model": model, "train": as_dict(Params().train)})
    return open_subject(str(folder), root / f"aside-{name}", Workspace(root))


def test_a_pooling_that_was_found_is_not_another_than_auto(tmp_path: Path) -> None:
    mean, first = run(tmp_path, "mean", pooling="mean"), run(tmp_path, "first")
    assert (mean.params[POOLING], first.params[POOLING]) == ("mean", "first")
    file = Subject("file", "params.yaml", params={**mean.params, POOLING: "auto"})
    assert differing([file, mean]) == []
    assert [its.values for its in differing([file, mean, first])] == [("auto", "mean", "first")]


def test_values_are_shown_as_the_file_has_them() -> None:
    values = {"freeze": ["image", "text"], "compile": True, "mean": [0.5, 0.25], "weights": "", "seed": None}
    given = {"options": {"norm": "groupnorm", "layers": [1, 2]}, "lr": 1e-3}
    one, other = Subject("a", "", params=values | given), Subject("b", "", params=dict.fromkeys(values | given, 7))
    assert {its.key: its.values[0] for its in differing([one, other])} == {
        "freeze": "[image, text]",
        "compile": "true",
        "mean": "[0.5, 0.25]",
        "weights": '""',
        "seed": "null",
        "options": "{norm: groupnorm, layers: [1, 2]}",
        "lr": "0.001",
    }
