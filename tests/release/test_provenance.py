"""Where a release says that it comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from zerovl.release import provenance

pytestmark = pytest.mark.usefixtures("registry_environment")


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert provenance.git_state(tmp_path) is None

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("a = 1")
    (tmp_path / "dvc.lock").write_text("one")
    git("add", ".")
    git("commit", "-m", "first")
    state = provenance.git_state(tmp_path)
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "dvc.lock").write_text("two")
    assert provenance.git_state(tmp_path) == state
    (tmp_path / "code.py").write_text("a = 2")
    assert provenance.git_state(tmp_path) == {**state, "dirty": True}


def test_who(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert provenance.who() == "test-run"
    monkeypatch.delenv("ZEROVL_RUN")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gitconfig").write_text("[user]\nname = A Person\nemail = a@b.c\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert provenance.who() == "A Person <a@b.c>"
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("LOGNAME", "login")
    assert provenance.who().startswith("login@")
