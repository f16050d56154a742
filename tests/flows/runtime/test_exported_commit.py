"""Files of a commit in a folder of their own, by Pythons with and without filters of `tarfile`."""

import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from flows.runtime import code_digests
from tests.support.project_copy import commit, git


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "run.sh").write_text("echo a\n")
    (root / "inner" / "run.sh").chmod(0o755)
    git(root, "init", "--quiet")
    commit(root, "first")
    (root / "inner" / "run.sh").write_text("echo b\n")
    return root


def check(root: Path) -> None:
    with code_digests.exported(root, "HEAD") as there:
        assert [path.relative_to(there).as_posix() for path in there.rglob("*.sh")] == ["inner/run.sh"]
        assert (there / "inner" / "run.sh").read_text() == "echo a\n"
        assert (there / "inner" / "run.sh").stat().st_mode & 0o100
    assert not there.exists()


def test_files_are_those_of_the_commit(repository: Path) -> None:
    check(repository)


def test_by_a_python_before_there_were_filters(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Debian 12 has it, 3.11.2."""
    extract = tarfile.TarFile.extractall

    def extractall(
        self: tarfile.TarFile,
        path: Path,
        members: Iterable[tarfile.TarInfo] | None = None,
        *,
        numeric_owner: bool = False,
    ) -> None:
        extract(self, path, members, numeric_owner=numeric_owner)

    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    monkeypatch.setattr(code_digests, "_PLAIN", None)
    check(repository)
