"""What Python compiles is kept by the processes that tests start, also where the machine's settings forbid it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest


def test_processes_of_this_session_may_keep_it() -> None:
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ


def test_a_setting_that_forbids_it_ends_with_the_start_of_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    (tmp_path / "once.py").write_text("")
    conftest.pytest_configure()
    assert not sys.dont_write_bytecode
    subprocess.run([sys.executable, "-c", "import once"], cwd=tmp_path, check=True)
    assert [path.name.partition(".")[0] for path in (tmp_path / "__pycache__").iterdir()] == ["once"]
