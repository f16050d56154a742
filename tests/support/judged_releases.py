"""Releases of small real models, registered with the gate's loosest bounds and compared as the gate does."""

from __future__ import annotations

import json
from typing import Any

from tests.support.real_world import make_model, settings
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore
from zerovl.release.gate import Comparison, LostHolder
from zerovl.release.holder import Holders
from zerovl.stages import evaluate as evaluate_stage
from zerovl.stages import register
from zerovl.workspace import Workspace


def evaluate(workspace: Workspace, seed: int) -> None:
    """Evaluate a model of random weights, another one for another seed."""
    make_model(workspace, seed)
    evaluate_stage.run(settings(workspace.root), workspace)


def released(workspace: Workspace) -> dict[str, Any]:
    """Register what is evaluated, with the loosest bounds that still compare."""
    params = settings(workspace.root, "register.gate.max_drop=600", "register.gate.min_rsum=0")
    register.run(params, workspace)
    return dict(json.loads(workspace.release.read_text()))


def compare(workspace: Workspace, holder: int = 1) -> Comparison | LostHolder:
    """Compare what is evaluated with a release, as the gate does."""
    registry = registry_of(workspace)
    return Holders.of(settings(workspace.root), workspace)(registry, registry.version("zerovl", holder))


def registry_of(workspace: Workspace) -> Registry:
    return Registry(FolderStore(workspace.root / "registry"))


def rsum(workspace: Workspace) -> float:
    """The score of what is evaluated."""
    return float(json.loads((workspace.evaluation_report / "metrics.json").read_text())["mean"]["rsum"])
