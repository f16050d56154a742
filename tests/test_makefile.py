"""The Makefile notices that the checkout was moved: programs in .venv/bin name their Python by its whole path."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(folder: Path, *words: str) -> str:
    done = subprocess.run(["make", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile beside an environment that seems to be complete."""
    folder = tmp_path / "checkout"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv" / "bin" / "activate").write_text(f'VIRTUAL_ENV="{folder}/.venv"\n')
    (folder / ".venv" / ".ready").write_text("")
    return folder


def test_an_environment_of_this_folder_is_kept(checkout: Path) -> None:
    assert "Nothing to be done" in make(checkout, "--dry-run", "setup")


def test_in_a_folder_that_was_moved_it_is_made_again(checkout: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    checkout.rename(moved)
    commands = make(moved, "--dry-run", "demo")
    assert commands.index("rm -rf .venv") < commands.index("-m venv .venv") < commands.index("dvc repro")
    # Now for real, with a Python and a uv that do nothing but make what is looked for.
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\n"
        'case "$1 $2" in "-m venv") mkdir -p .venv/bin; '
        'echo "VIRTUAL_ENV=$PWD/.venv" > .venv/bin/activate; cp "$0" .venv/bin/python; cp "$0" .venv/bin/uv;; esac\n'
    )
    fake.chmod(0o755)
    assert "it is made again" in make(moved, f"PYTHON={fake}", "setup")
    assert (moved / ".venv" / "bin" / "activate").read_text() == f"VIRTUAL_ENV={moved}/.venv\n"
    assert "Nothing to be done" in make(moved, "--dry-run", "setup")


def test_a_link_to_another_environment_is_left_alone(checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (checkout / ".venv").rename(elsewhere)
    (elsewhere / "bin" / "activate").write_text(f'VIRTUAL_ENV="{elsewhere}"\n')
    (checkout / ".venv").symlink_to(elsewhere)
    assert "rm -rf" not in make(checkout, "--dry-run", "setup")


def test_the_oldest_versions_have_an_environment_of_their_own(checkout: Path) -> None:
    shutil.copy(ROOT / "requirements-oldest.lock", checkout / "requirements-oldest.lock")
    commands = make(checkout, "--dry-run", "test-oldest")
    made, tested = (
        commands.index("-m venv --without-pip .venv-oldest"),
        commands.index(".venv-oldest/bin/python -m pytest"),
    )
    assert made < commands.index("uv pip sync --quiet --require-hashes requirements-oldest.lock") < tested
    for folder in (checkout / ".venv-oldest", checkout / ".venv-oldest" / "bin"):
        folder.mkdir()
    (checkout / ".venv-oldest" / ".ready").touch()
    assert "uv pip" not in make(checkout, "--dry-run", "test-oldest")  # kept until the lock changes
    tests = [word for word in commands.split() if word.startswith("tests/")]
    assert len(tests) > 5
    assert all((ROOT / test).exists() for test in tests)


def test_the_lock_of_the_oldest_versions_has_what_pyproject_promises() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    promised = [*project["dependencies"], *extras["search-faiss"], *extras["tracking-wandb"]]
    lowest = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in promised if ">=" in line)  # type: ignore[union-attr]
    assert {"torch", "faiss-cpu", "wandb"} <= set(lowest)
    locked = dict(re.findall(r"(?m)^([\w-]+)==([\w.]+)", (ROOT / "requirements-oldest.lock").read_text()))
    differs = {name for name, low in lowest.items() if release(locked[name]) != release(low)}
    assert differs == {"webdataset"}  # its first 1.0 is 1.0.2


def release(version: str) -> str:
    """A version without zeros at its end: 2.11 and 2.11.0 are one."""
    return re.sub(r"(\.0)+$", "", version)


def test_help_names_every_target_that_is_for_people_in_the_order_of_their_list(checkout: Path) -> None:
    listed = [line.split()[0] for line in make(checkout, "--no-print-directory", "help").splitlines()]
    (wanted,) = re.findall(r"(?m)^\.PHONY: (help .*)$", (ROOT / "Makefile").read_text())
    assert listed == wanted.split()
    used = ["setup", "demo", "towers", "ui", "deploy", "experiments", "test", "lint", "clean"]
    assert [name for name in listed if name in used] == used
