"""Releases of small real models that have all that a run of their own would have left."""

from __future__ import annotations

import json

from tests.support.real_world import make_model, settings
from zerovl import params_file
from zerovl.files import write_json
from zerovl.stages import evaluate as evaluate_stage
from zerovl.stages import register
from zerovl.workspace import Workspace

LOOSE = ("register.gate.max_drop=600", "register.gate.min_rsum=0", "register.gate.difference=none")
# Folds of six pictures, and a set of seven classes.
FURTHER = (
    "evaluate.folds=6",
    "evaluate.classification=[{name: colours, folder: sets, measures: [zero_shot, linear_probe]}]",
)


def release(workspace: Workspace, seed: int, lr: float) -> None:
    """Evaluate and register a model of random weights, as if a run of its own had trained it."""
    params = settings(workspace.root, *LOOSE, *FURTHER, f"train.lr={lr}")
    make_model(workspace, seed)
    name = f"run{seed}"
    scores = {"valid_chance_rsum": 16.0}
    rows = [{"step": step, "loss": 5.0 - seed - step / 10, "valid_rsum": 100.0 + step, **scores} for step in range(9)]
    for folder in (workspace.training_report, workspace.runs / name):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(workspace.training_run, {"fingerprint": name, "parent": None})
    train = {"lr": lr, "batch_size": params.train.batch_size}  # as a fingerprint has it: without what shapes no weight
    write_json(workspace.runs / name / "fingerprint.json", {"train": train})
    params_file.write(params, workspace.root / "params.yaml")
    evaluate_stage.run(params, workspace)
    register.run(params, workspace)
