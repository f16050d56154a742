"""A disk that refuses ends a command with the file and the fix, not with a traceback."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from zerovl import cli, disk_errors


def test_a_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert cli.main(["recipe", "demo", "--out", "file/params.yaml"]) == 2
    said = "zerovl recipe: file: File exists; remove what is there, or name another place\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "words",
    [
        ["recipe", "demo", "--out", "folder"],
        ["compare", "a", "b", "--out", "folder"],
        ["compare", "a", "b", "--json", "folder"],
        ["sweep", "train.lr=1,2", "--out", "folder"],
        ["embed", "model", "--images", "folder", "--out", "."],
        ["search", "model", "a star", "--images", "folder", "--out", "."],
        ["plan", "--json", "folder"],
    ],
    ids=lambda words: " ".join((words[0], words[-2])),
)
def test_a_folder_in_place_of_a_file_is_told_before_anything_is_done(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert f"{words[-1]!r} is a folder; name a file in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["search", "model", "a star", "--images", "folder", "--out", "found.xyz"],
            "'found.xyz': give a name that ends in .png",
        ),
        (
            ["search", "model", "a star", "--images", "folder", "--out", "found"],
            "'found': give a name that ends in .png",
        ),
        (["compare", "a", "b", "--out", "page.png"], "'page.png': give a name that ends in .html or .htm"),
    ],
    ids=lambda given: given[-1] if isinstance(given, list) else "",
)
def test_a_name_that_says_another_kind_of_file_is_told_before_anything_is_done(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_full_disk_names_what_was_to_be_written(tmp_path: Path) -> None:
    """The largest size of a file stands in for the disk: the write of an open file fails, and names none."""
    done = subprocess.run(
        [sys.executable, "-m", "zerovl.cli", "recipe", "demo", "--out", str(tmp_path / "params.yaml")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    said = f"zerovl recipe: {tmp_path / 'params.yaml'}: cannot be written, it is larger than a file may be"
    assert (done.returncode, done.stderr) == (2, f"{said} (File too large); make room, then run it again\n")
    assert list(tmp_path.iterdir()) == []


def test_numpy_says_two_counts_of_a_full_disk(tmp_path: Path) -> None:
    code = "import numpy, resource, signal, sys\n"
    code += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    code += "try: numpy.zeros(1_000_000).tofile(sys.argv[1])\n"
    code += "except OSError as error: print(error.errno, error)\n"
    command = [sys.executable, "-c", code, str(tmp_path / "array")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    none, counts = done.stdout.strip().split(" ", 1)
    assert (none, counts) == ("None", "1000000 requested and 12500 written")
    said = f"out.npz: cannot be written, the disk is full ({counts}); make room, then run it again"
    assert disk_errors.sentence(OSError(counts), "out.npz") == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "a file: cannot be written, the disk is full"),
        (OSError(errno.EDQUOT, "Quota", "there"), "there: cannot be written, your quota is used up (Quota)"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), "/a/b: Read-only file system; name another place"),
        (OSError(errno.EISDIR, "Is a directory", ".x.part", None, "x"), "x: Is a directory; remove what is there"),
    ],
    ids=["full", "quota", "read-only", "renamed"],
)
def test_other_sentences(error: OSError, said: str) -> None:
    assert disk_errors.sentence(error, "").startswith(said)


def test_who_may_write_is_said_of_the_lowest_folder_that_is_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a" / "b"))
    said = f"{tmp_path}/a/b: Permission denied ({tmp_path} is dr-x------, of user {os.getuid()}); open it to this user"
    assert disk_errors.sentence(error, "").startswith(said)


@pytest.mark.parametrize(
    "error",
    [OSError("anything"), FileNotFoundError(errno.ENOENT, "No such file", "x"), PermissionError(errno.EPERM, "kill")],
    ids=["no-number", "not-there", "no-name"],
)
def test_an_error_that_is_not_the_disks_keeps_its_traceback(error: OSError) -> None:
    assert disk_errors.sentence(error, "out") == ""
