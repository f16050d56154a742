"""`zerovl code`: what each stage runs, as files that DVC compares."""

from __future__ import annotations

from zerovl import code_closure
from zerovl.files import write_json
from zerovl.workspace import Workspace


def write(workspace: Workspace) -> None:
    """Write `reports/code/STAGE.json`, digest by file, for every stage; equal code gives equal bytes."""
    for stage in code_closure.STAGES:
        write_json(workspace.code_report / f"{stage}.json", code_closure.digests(stage))
