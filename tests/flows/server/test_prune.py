"""What runs of long ago left: listed, and removed where nothing works in it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.runtime.checkout import make
from flows.runtime.paths import Paths
from flows.server import prune
from tests.support.project_copy import copy_project, git

LONG_AGO = time.time() - 40 * 86400


def age(path: Path) -> None:
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.utime(os.path.join(folder, name), (LONG_AGO, LONG_AGO), follow_symlinks=False)
    os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paths]:
    root = copy_project(tmp_path_factory.mktemp("factory") / "project")
    paths = Paths(root, root / ".flows")
    (paths.runs / "abc" / "checkpoints").mkdir(parents=True)
    (paths.runs / "abc" / "checkpoints" / "weights").write_bytes(b"x" * 2**20)
    (paths.runs / "new").mkdir()
    for name in ("old", "busy", "fresh"):
        make(paths, name, name, "HEAD")
    (paths.reports / "old").mkdir(parents=True)
    for path in (paths.runs / "abc", paths.reports / "old", paths.checkouts / "old", paths.checkouts / "busy"):
        age(path)
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], cwd=paths.checkouts / "busy" / "zerovl", stdin=-1
    ) as works:
        yield paths
        works.communicate(b"\n")


def command(paths: Paths, *words: str) -> str:
    environment = {**os.environ, "ZEROVL_ROOT": str(paths.root)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.server.prune", *words],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_old_things_are_listed_then_removed_and_branches_stay(paths: Paths) -> None:
    old = {paths.runs / "abc", paths.reports / "old", paths.checkouts / "old"}
    assert {each.path for each in prune.leftovers(paths, 30)} == old
    said = command(paths)
    assert f"would remove run state {paths.runs / 'abc'}: 40 days old, 1 MiB" in said
    assert "3 older than 30 days" in said
    assert all(path.is_dir() for path in old)
    assert "3 older than 30 days" in command(paths, "--yes")
    assert not any(path.exists() for path in old)
    assert (paths.runs / "new").is_dir()
    assert sorted(path.name for path in paths.checkouts.iterdir()) == ["busy", "fresh"]
    assert git(paths.root, "branch", "--list", "runs/old", "--format=%(refname:short)") == "runs/old"
    assert "checkouts/old" not in git(paths.root, "worktree", "list")
    assert command(paths) == "0 older than 30 days, 0 MiB\n"


def test_what_may_be_in_use_is_not_asked_for(paths: Paths) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        command(paths, "--days", "0", "--yes")
    assert "--days 0: at least 1" in refused.value.stderr


def test_a_checkout_that_git_has_forgotten_is_removed_too(paths: Paths) -> None:
    path = paths.checkouts / "alien"
    path.mkdir()
    age(path)
    (found,) = prune.leftovers(paths, 30)
    found.remove(paths)
    assert not path.exists()
