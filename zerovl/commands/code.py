"""`zerovl code`: what each stage runs, and what it reads from elsewhere, as files that DVC compares."""

from __future__ import annotations

from zerovl import code_closure, params_file
from zerovl.evaluation.classification.listing import listing_digest
from zerovl.files import write_json
from zerovl.workspace import Workspace


def write(workspace: Workspace) -> None:
    """Write `reports/code/STAGE.json`, digest by file, for every stage; equal code gives equal bytes.

    That of `evaluate` has the sets of `evaluate.classification` too: a set that changed is evaluated again.

    Raises:
        ZeroVLError: params.yaml cannot be read, or one of its sets is not there.
    """
    for stage in code_closure.STAGES:
        read = _sets(workspace) if stage == "evaluate" else {}
        write_json(workspace.code_report / f"{stage}.json", code_closure.digests(stage) | read)


def _sets(workspace: Workspace) -> dict[str, str]:
    """Return a digest by set; none where there are no parameters yet."""
    path = workspace.root / "params.yaml"
    settings = params_file.load(path).evaluate.classification if path.is_file() else []
    return {f"evaluate.classification {its.name}": listing_digest(its) for its in settings}
