"""Where a release says that it comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from zerovl import code_closure
from zerovl.release import provenance

pytestmark = pytest.mark.usefixtures("registry_environment")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in git, with a package of which stages run one module and one page."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "project"
    files = ("zerovl/run.py", "zerovl/serve.py", "zerovl/page.html", "docs/page.md", "dvc.lock", "params.yaml", "a.dvc")
    for path in (*files, "raw/0.jpg", "notes/a.txt"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("first")
    monkeypatch.setattr(code_closure, "PACKAGE", root / "zerovl")
    run = frozenset({root / "zerovl" / "run.py", root / "zerovl" / "page.html"})
    monkeypatch.setattr(code_closure, "files", lambda: run)
    (root / ".gitignore").write_text("ignored\n")
    git(root, "init")
    git(root, "add", "zerovl", "docs", "dvc.lock", "params.yaml", "a.dvc", "raw", ".gitignore")
    git(root, "commit", "-m", "first")
    return root


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


PARAMS: dict[str, Any] = {
    "data": {"raw": "raw", "sources": [{"path": "tars/{00..09}.tar"}]},
    "model": {"text_tower": {"name": "bert-base-uncased", "path": ""}},
    "train": {"loss": "softmax", "init_from": "/elsewhere"},
    "register": {"store": "registry"},
    "machine": {"shards": "copy"},
}


def test_git_state(root: Path, tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path, PARAMS) is None
    state = provenance.git_state(root, PARAMS)
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["dirty"] is False  # though git does not know notes/


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("dvc.lock", False),  # a run writes it
        ("docs/page.md", False),
        ("note.txt", False),
        ("zerovl/serve.py", False),  # no stage imports it
        ("zerovl/.run.py.swp", False),
        ("registry/0.json", False),
        ("copy/0.tar", False),
        ("raw/ignored", False),
        ("zerovl/run.py", True),
        ("zerovl/page.html", True),
        ("params.yaml", True),
        ("dvc.yaml", True),
        ("a.dvc", True),
        ("data/new.dvc", True),
        ("raw/0.jpg", True),
        ("raw/\u00e9 \n.jpg", True),
        ("tars/00.tar", True),
    ],
)
def test_what_a_stage_reads_counts_and_nothing_else(path: str, dirty: bool, root: Path) -> None:
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text("second")
    state = provenance.git_state(root, PARAMS)
    assert state is not None
    assert state["dirty"] is dirty
    if not path.endswith("ignored"):
        git(root, "add", path)
    assert provenance.git_state(root, PARAMS) == state  # staged too


def test_what_nobody_can_say_counts(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dirty() -> bool:
        state = provenance.git_state(root, PARAMS)
        assert state is not None
        return bool(state["dirty"])

    (root / "zerovl" / "serve.py").unlink()
    assert dirty()
    git(root, "checkout", "--", "zerovl/serve.py")
    assert not dirty()
    (root / "zerovl" / "serve.py").write_text("second")
    assert not dirty()
    with monkeypatch.context() as elsewhere:  # the commands are those of another package
        elsewhere.setattr(code_closure, "PACKAGE", tmp_path / "zerovl")
        assert dirty()
    with monkeypatch.context() as slow:
        ask = provenance._answer
        slow.setattr(provenance, "_answer", lambda command: None if "ls-files" in command else ask(command))
        assert dirty()


def test_the_stages_run_files_of_this_package() -> None:
    files = code_closure.files()
    assert {code_closure.PACKAGE / "stages" / "train.py", code_closure.PACKAGE / "log.py"} <= files
    assert code_closure.PACKAGE / "commands" / "serve.py" not in files


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
