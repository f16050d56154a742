"""The stage `train`: shards, manifest and a passed verdict to a bundle and the training report."""

from __future__ import annotations

import os

from zerovl import cores, gpu_names
from zerovl.errors import ZeroVLError
from zerovl.params import Params


def run(params: Params, path: str) -> int:
    """Train, or go on with an interrupted run; returns the exit status (see `training.launch.launch`).

    Args:
        path: the file of `params`, which several ranks read themselves.
    """
    set_threads(params)
    from zerovl.training import launch  # torch: after the number of threads is set

    return launch.launch(params, path)


def set_threads(params: Params) -> None:
    """Set what OpenMP reads when torch is loaded: how many threads a rank has, and that waiting ones sleep.

    Threads that spin while they wait take the core from whom they wait for: on two cores that others use too a
    step took up to 60 times as long. What is set outside stays.
    """
    threads = params.machine.threads or max(1, cores.core_count() // _ranks(params))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _ranks(params: Params) -> int:
    """Return how many ranks share the cores: where `machine.ranks` leaves it open, one a GPU."""
    if params.machine.ranks:
        return params.machine.ranks
    try:
        return max(1, gpu_names.visible().usable)
    except ZeroVLError:  # of a driver that does not answer: whoever needs a GPU says it
        return 1
