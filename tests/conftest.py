"""What all tests share."""

import os
from pathlib import Path

import pytest

from tests.support.paths import SHARED

# Fixtures for all: S3 servers, which start when a test asks for one, and registries in stores of each kind.
pytest_plugins = ["tests.support.s3", "tests.support.registries"]

# One thread a test process: tests run in parallel, and sums in one order are reproducible.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")


@pytest.fixture(scope="session")
def parity() -> Path:
    """Golden outputs of the original implementation; they are not part of the project."""
    if not (SHARED / "parity").is_dir():
        pytest.skip("no golden outputs on this machine")
    return SHARED / "parity"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_tests:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no GPU"))


def longest_first(items: list[pytest.Item]) -> None:
    """Files with the longest time limits first: one that starts last would have a worker to itself at the end."""
    limits: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, 0.0), marker.args[0] if marker else 0.0)
    items.sort(key=lambda item: -limits[item.path])
