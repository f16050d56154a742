"""The trackers by name, and which of them a run has. The next one is a module here and an entry in `TRACKERS`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.params import Params
from zerovl.tracking import mlflow_runs
from zerovl.tracking.base import Tracker
from zerovl.tracking.mlflow_runs import MlflowRuns
from zerovl.tracking.tensorboard_files import TensorBoardFiles
from zerovl.tracking.wandb_runs import WandbRuns

MLFLOW = "mlflow"


@dataclass(frozen=True)
class Kind:
    """How a tracker is made, and what its package is."""

    make: Callable[[str], Tracker]  # from the project that runs are grouped by
    package: str  # of the extra `tracking-NAME`


TRACKERS = {
    MLFLOW: Kind(MlflowRuns, "mlflow"),
    "tensorboard": Kind(TensorBoardFiles, "tensorboard"),
    "wandb": Kind(WandbRuns, "wandb"),
}


def check(params: Params) -> None:
    """Raise `ZeroVLError` where a tracker of `machine.tracking` is not installed, or has no address."""
    for name in params.machine.tracking:
        if missing := _missing(name):
            raise ZeroVLError(f"machine.tracking: {name}: {missing}, or take {name} out of machine.tracking")


def asked_for(params: Params) -> tuple[str, ...]:
    """Return the trackers of `machine.tracking`; MLflow also where `MLFLOW_TRACKING_URI` is set.

    Raises `ZeroVLError` as `check` does. A variable that is set for other programs too stops nobody: where MLflow is
    not installed a warning says so.
    """
    check(params)
    named = tuple(dict.fromkeys(params.machine.tracking))
    if MLFLOW in named or not os.environ.get(mlflow_runs.URI):
        return named
    if missing := _missing(MLFLOW):
        logger().warning(f"{mlflow_runs.URI} is set, but nothing is tracked there: {missing}, or unset the variable")
        return named
    return (*named, MLFLOW)


def _missing(name: str) -> str:
    """What a tracker lacks, with the fix; empty where it lacks nothing."""
    spec = find_spec(TRACKERS[name].package)
    if spec is None or spec.origin is None:  # a folder of that name, as wandb makes one, is no package
        return f"{TRACKERS[name].package} is not installed; run `pip install 'zerovl[tracking-{name}]'`"
    if name == MLFLOW and not os.environ.get(mlflow_runs.URI):
        return f"{mlflow_runs.URI} is not set; set it to the server's address, as http://127.0.0.1:5000"
    return ""
