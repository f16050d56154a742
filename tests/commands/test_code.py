"""What of `params.yaml` is in the files by which DVC knows what a stage runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zerovl import code_closure
from zerovl.commands import code
from zerovl.params_file import from_recipe, write
from zerovl.workspace import Workspace

STREAMED = ["train.streaming.sources=[{name: web, urls: [web/*.tar]}, {name: news, urls: [news.tar]}]"]


def test_stages_depend_on_what_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path)
    monkeypatch.setattr(code_closure, "digests", lambda stage: {f"{stage}.py": "its digest"})

    def written(*overrides: str) -> dict[str, dict[str, str]]:
        write(from_recipe({}, list(overrides), "test"), tmp_path / "params.yaml", head="")
        code.write(workspace)
        return {path.stem: json.loads(path.read_text()) for path in workspace.code_report.iterdir()}

    plain = {stage: {f"{stage}.py": "its digest"} for stage in code_closure.STAGES}
    assert written(*STREAMED) == plain
    streamed = written(*STREAMED, "train.reading=streaming", "prepare.max_pixels=1000")
    assert streamed == plain | {
        "validate": plain["validate"] | {f"train.streaming {name}": "not looked at" for name in ("news", "web")},
        "train": plain["train"] | {"prepare.max_caption_bytes": "10000", "prepare.max_pixels": "1000"},
    }
    (tmp_path / "params.yaml").unlink()
    code.write(workspace)
    assert json.loads((workspace.code_report / "validate.json").read_text()) == plain["validate"]
