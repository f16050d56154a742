"""DVC's cache and remote of two users of a group (`shared = group`); they are real ones, which root alone can be."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.two_users import ANNA, BERT, GROUP, OTHER_GROUP, as_root, as_user, folder_of_the_group, in_a_child
from zerovl.commands import dvc_cache, params_checks

pytestmark = as_root
SHARED = "shared = group"


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A shared folder, which DVC's own places of a machine lie beside."""
    with folder_of_the_group("cache") as folder:
        for name in ("HOME", "DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            monkeypatch.setenv(name, str(folder.parent / "machine"))
        monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
        monkeypatch.chdir(folder.parent)
        yield folder


def make_project(folder: Path, user: int, cache: Path, shared: str = SHARED, remote: str = "") -> Path:
    """A project of a user's own, with one stage."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text(f"[core]\nno_scm = true\n[cache]\ndir = {cache}\n{shared}\n{remote}")
    (folder / "dvc.yaml").write_text(
        "stages:\n  copy:\n    cmd: cat in.txt > out.txt; echo ran >> log\n    deps: [in.txt]\n    outs: [out.txt]\n"
    )
    (folder / "in.txt").write_text(folder.name)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, OTHER_GROUP)
    return folder


def dvc(folder: Path, *arguments: str) -> None:
    from dvc.cli import main

    os.chdir(folder)
    os.environ["USER"] = os.environ["LOGNAME"] = str(os.getuid())
    assert main([*arguments, "-q"]) == 0, arguments


def both(cache: Path, anna: Callable[[Path], None], bert: Callable[[Path], None]) -> None:
    """Let Anna work in a project of hers, and then Bert in one of his that has her DVC files.

    All in a child process, whose DVC has imported by itself whatever the commands need before users take over.
    """
    place = cache.parent
    remote = f"['remote \"ours\"']\nurl = {cache / 'remote'}\n{SHARED}\n"
    projects = {user: make_project(place / str(user), user, cache, remote=remote) for user in (ANNA, BERT)}

    def work() -> None:
        own = make_project(place / "warm", 0, place / "c", "", remote.replace(str(cache), str(place / "r")))
        dvc(own, "add", "in.txt")
        dvc(own, "repro")
        (own / "out.txt").unlink()
        dvc(own, "checkout")
        dvc(own, "push", "-r", "ours")
        dvc(own, "gc", "-w", "-f")
        dvc(own, "pull", "-r", "ours")
        as_user(ANNA, 0o077, lambda: anna(projects[ANNA]))
        for name in ("in.txt.dvc", "dvc.lock"):
            shutil.copyfile(projects[ANNA] / name, projects[BERT] / name)
            os.chown(projects[BERT] / name, BERT, OTHER_GROUP)
        as_user(BERT, 0o022, lambda: bert(projects[BERT]))

    in_a_child(work)


def test_one_makes_the_other_checks_out_takes_the_run_and_adds(cache: Path) -> None:
    def anna(project: Path) -> None:
        dvc(project, "add", "in.txt")
        dvc(project, "repro")
        dvc(project, "push", "-r", "ours")

    def bert(project: Path) -> None:
        own = project / ".dvc" / "config.local"
        own.write_text(f"[cache]\ndir = {project / 'own-cache'}\n")
        (project / "in.txt").unlink()
        dvc(project, "pull", "-r", "ours")  # from the remote, as the cache of his own is empty
        own.unlink()
        (project / "in.txt").unlink()
        dvc(project, "checkout")
        assert (project / "in.txt").read_text() == str(ANNA)
        (project / "dvc.lock").unlink()  # as on a branch that does not have it
        (project / "out.txt").unlink()
        dvc(project, "repro")
        assert not (project / "log").exists()  # her run was taken
        (project / "in.txt").unlink()
        (project / "in.txt").write_text("his own")
        dvc(project, "add", "in.txt")
        dvc(project, "repro")
        assert (project / "log").read_text() == "ran\n"
        dvc(project, "push", "-r", "ours")
        dvc(project, "gc", "-w", "-f")  # removes hers, too

    both(cache, anna, bert)
    for path in cache.rglob("*"):
        status = path.stat()
        wanted = 0o2775 if path.is_dir() else 0o664 if "runs" in path.parts else 0o444
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (wanted, GROUP), path
    assert {path.stat().st_uid for path in (cache / "files").rglob("*") if path.is_file()} == {BERT}


def test_doctor_names_what_is_closed_and_the_command_that_opens_it(cache: Path) -> None:
    project = make_project(cache.parent / "p", BERT, cache)
    inner = cache / "files" / "md5"
    inner.mkdir(parents=True)
    for folder in (cache / "files", inner):
        folder.chmod(0o2775)

    assert list(dvc_cache.findings(project)) == [("ok", f"cache {cache}: is shared by its group")]
    inner.chmod(0o755)
    [(level, text)] = dvc_cache.findings(project)
    assert level == "FAIL"
    assert f"{inner} is drwxr-xr-x, of user 0; " in text
    assert f"chmod -R g+rX {cache}; find {cache} -type d -exec chmod g+ws {{}} +" in text
    inner.chmod(0o2775)

    def outside() -> None:
        [(level, text)] = dvc_cache.findings(project)
        assert (level, "usermod -aG GROUP USER" in text) == ("FAIL", True), text

        [store] = params_checks.check_store(str(inner))
        assert store.level == "FAIL"
        assert f"{cache} is drwxrws---, of user {ANNA}" in store.text

    as_user(BERT, 0o022, outside, group=OTHER_GROUP)


def test_doctor_notes_a_group_that_dvc_does_not_know_of_and_a_folder_to_come(cache: Path) -> None:
    project = make_project(cache.parent / "p", BERT, cache, shared="")
    [(level, text)] = dvc_cache.findings(project)
    assert (level, "run `dvc config --local cache.shared group`" in text) == ("note", True)
    cache.chmod(0o755)
    assert not list(dvc_cache.findings(project))  # one's own
    away = make_project(cache.parent / "q", BERT, cache / "away")
    [(level, text)] = dvc_cache.findings(away)
    assert (level, f"chmod 2770 {cache / 'away'}" in text) == ("note", True)
