"""The stage `register` on files that are not models, as its tests run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zerovl import params, params_file
from zerovl.evaluation.metrics import Interval, headline_block
from zerovl.params import Params
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.release import holder
from zerovl.release import promote as promoting
from zerovl.release.gate import Compare, Comparison, LostHolder
from zerovl.stages import register
from zerovl.workspace import Workspace

Write = Callable[..., None]


def compared(registry: Registry, holder: Version) -> Comparison | LostHolder:
    """In place of ranks by query: the difference of the RSUM in both metrics, 10 either way."""
    ours = json.loads((Path(registry.store.uri).parent / "reports" / "evaluation" / "metrics.json").read_text())
    difference = headline_block(ours)[1]["rsum"] - headline_block(holder.metrics)[1]["rsum"]
    return Comparison(Interval(difference, difference - 10.0, difference + 10.0), {})


def checked(folder: Path) -> str:
    return f"{len(list(folder.glob('sample/*')))} files in its sample"


def run_stage(
    params: Params, workspace: Workspace, compare: Compare = compared, check: Callable[[Path], str] = checked
) -> None:
    """Run the stage on files that are not models: `compare` and `check` stand for what would load them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holder, "Holders", SimpleNamespace(of=lambda params, workspace: compare))
        patch.setattr(promoting, "check_release", check)
        register.run(params, workspace)


def settings(**register: Any) -> Params:
    return params_file.parse(params_file.merge(params.as_dict(Params()), {"register": register}), "test")


def released(workspace: Workspace) -> dict[str, Any]:
    return dict(json.loads(workspace.release.read_text()))
