"""What Python compiles is kept for as long as the tests run, also where the machine's settings forbid it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import conftest


class Config:
    """What the hook asks of pytest's."""

    def __init__(self) -> None:
        self.cleanups: list[Callable[[], None]] = []

    def add_cleanup(self, cleanup: Callable[[], None]) -> None:
        self.cleanups.append(cleanup)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in ("pycache_prefix", "dont_write_bytecode"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # given back after the test
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "not of this test")
    return Config()


def test_processes_of_this_session_may_keep_it() -> None:
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ


def test_it_is_kept_in_a_folder_that_goes_with_the_session(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "once.py").write_text("")
    conftest.pytest_configure(config)  # type: ignore[arg-type]
    subprocess.run([sys.executable, "-c", "import once"], cwd=tmp_path, check=True)
    folder = Path(os.environ["PYTHONPYCACHEPREFIX"])
    assert [path.name.partition(".")[0] for path in folder.rglob("once.*.pyc")] == ["once"]
    assert not (tmp_path / "__pycache__").exists()
    for cleanup in config.cleanups:
        cleanup()
    assert not folder.exists()


def test_where_python_keeps_it_already_nothing_changes(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    conftest.pytest_configure(config)  # type: ignore[arg-type]
    assert (os.environ["PYTHONPYCACHEPREFIX"], config.cleanups) == ("not of this test", [])
