from pathlib import Path

import pytest

from tests.support.shard_copies import Copies
from tests.support.shard_fixture import Written, write


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_WORKERS", "1")


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Six shards of about equal size."""
    return write(tmp_path, {"web": 42})


@pytest.fixture
def copies(written: Written, tmp_path: Path) -> Copies:
    return Copies(written.shards, tmp_path / "fetched")
