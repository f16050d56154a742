"""What all tests share."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT, SHARED

# Tests of the flows that share one Prefect server and worker, in this order: each goes on where the one before ended.
_FACTORIES = (
    (
        "tests/flows/test_browser.py",
        "tests/flows/test_runs.py",
        "tests/flows/server/test_told.py",
    ),
    (
        "tests/flows/test_releases.py",
        "tests/flows/test_killed_runs.py",
        "tests/flows/server/test_lost_runs.py",
        "tests/flows/server/test_ui.py",
    ),
)
FACTORY_FILES = tuple(file for files in _FACTORIES for file in files)

# Fixtures for all: S3 servers, which start when a test asks for one, and registries in stores of each kind.
pytest_plugins = ["tests.support.s3", "tests.support.registries"]

# One thread a test process: tests run in parallel, and sums in one order are reproducible.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# Also where there is a GPU, and for the processes that tests start: what is tested is the same on every machine.
os.environ["ZEROVL_DEVICE"] = "cpu"


# The tests' modules import a million objects that stay. Collected among every 700 new ones, as Python does it, they
# took half of the CPU of collecting the tests, and each collection in a test went through all of them.
gc.set_threshold(50_000)
_frozen_modules = 0  # how many there were when they were frozen
_MANY_MODULES = 200


def pytest_configure() -> None:
    """Let Python keep what it compiles, as it does where the machine's settings do not forbid it.

    Tests start hundreds of processes, and each would compile the project's modules again; `make setup` has compiled
    those of others.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None) is not None:
        sys.dont_write_bytecode = False


@pytest.fixture(scope="session")
def parity() -> Path:
    """Golden outputs of the original implementation; they are not part of the project."""
    if not (SHARED / "parity").is_dir():
        pytest.skip("no golden outputs on this machine")
    return SHARED / "parity"


@pytest.fixture(autouse=True)
def log_as_in_a_new_process() -> None:
    """A command sets up the log of its process, which `caplog` of a later test would then not see."""
    log = logging.getLogger("zerovl")
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    log.propagate = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_tests:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no GPU"))


def pytest_collection_finish() -> None:
    """Freeze what the tests' modules have imported: no collection looks at it again."""
    freeze_imports()


def pytest_runtest_logfinish() -> None:
    """Freeze what a test has imported too, where it is much: each training in a test collects four times."""
    if len(sys.modules) > _frozen_modules + _MANY_MODULES:
        freeze_imports()


def freeze_imports() -> None:
    """Freeze all that is there, so that no collection looks at it again."""
    global _frozen_modules
    _frozen_modules = len(sys.modules)
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let Python end as it does: libraries in C++ count what is left of them."""
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests with the mark `gpu`, their fixtures and the processes that they start compute on the GPU."""
    if not item.get_closest_marker("gpu"):
        return (yield)
    device = os.environ.pop("ZEROVL_DEVICE")
    try:
        return (yield)
    finally:
        os.environ["ZEROVL_DEVICE"] = device


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: those that have a factory wait for it for half of their time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """By file, and files that share a factory of the flows on one worker, one after the other."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    # A worker's factory ends before the first file that needs none: one that got a second could not start it.
    factories = _FACTORIES if len(config.getoption("tx")) > len(_FACTORIES) else (FACTORY_FILES,)

    class ByFactory(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return next((f"factory of {files[0]}" for files in factories if file in files), file)

    return ByFactory(config, log)


def longest_first(items: list[pytest.Item]) -> None:
    """Files with the longest time limits first: one that starts last would have a worker to itself at the end."""
    limits: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, 0.0), marker.args[0] if marker else 0.0)
    order = {ROOT / file: number for number, file in enumerate(FACTORY_FILES)}
    items.sort(key=lambda item: (-limits[item.path], order.get(item.path, 0)))
