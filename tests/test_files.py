"""Locks of open files, on file systems that have them and on those that do not; the modes of new files."""

import errno
import logging
import os
import stat
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from zerovl import gpu_leases, lease_files
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.files import atomic_write, missing_locks, try_lock, usual_mode
from zerovl.shared_folder import is_shared
from zerovl.training.run_lock import locked

ONE = Ranks(0, 1, torch.device("cpu"), OneRank())


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let flock(2) fail with an error."""

    def flock(_descriptor: int, _operation: int) -> NoReturn:
        raise OSError(number, "refused")

    monkeypatch.setattr("zerovl.files.fcntl.flock", flock)


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS])
def test_without_locks_a_run_goes_on_and_says_so_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(monkeypatch, number)
    trained = []
    with caplog.at_level(logging.WARNING, "zerovl"):
        for _ in range(2):
            with locked(tmp_path / "run", ONE):
                trained.append(True)
    assert len(trained) == 2
    (record,) = caplog.records
    assert str(tmp_path / "run" / "lock") in record.getMessage()
    assert "has no locks" in record.getMessage()


def test_without_locks_a_job_gets_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(lease_files.VARIABLE, str(tmp_path / "leases"))
    refuse(monkeypatch, errno.ENOLCK)
    said: list[str] = []
    with caplog.at_level(logging.WARNING, "zerovl"):
        held = [gpu_leases.take(1, ["GPU-a", "GPU-b"], "a", said.append) for _ in range(2)]
    assert [its.devices for its in held] == [("GPU-a",), ("GPU-a",)]
    assert said == []
    assert f"{tmp_path / 'leases'}: cannot be locked, its file system has no locks" in caplog.text


def test_another_error_of_a_lock_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EIO)
    with open(tmp_path / "lock", "w") as file, pytest.raises(OSError, match="refused"):
        try_lock(file.fileno(), tmp_path / "lock")
    with pytest.raises(OSError, match="refused"):
        missing_locks(tmp_path)


def test_a_lock_that_is_held_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open(path, "w") as first, open(path) as second:
        assert try_lock(first.fileno(), path)
        assert not try_lock(second.fileno(), path)


@pytest.mark.parametrize(
    ("umask", "folder", "mode"),
    [
        (0o002, 0o755, 0o664),
        (0o022, 0o755, 0o644),
        (0o077, 0o755, 0o600),
        (0o077, 0o770, 0o600),  # its group is not handed on (setgid)
        (0o077, 0o2770, 0o660),
        (0o022, 0o2775, 0o664),
        (0o022, 0o1777, 0o644),  # everybody's, as /tmp
    ],
)
def test_new_files_have_the_mode_of_the_umask_or_of_a_folder_that_a_group_shares(
    umask: int, folder: int, mode: int, tmp_path: Path
) -> None:
    tmp_path.chmod(folder)
    tensors, text = tmp_path / "tensors", tmp_path / "text"
    tensors.touch(0o600)  # of a run that was killed
    before = os.umask(umask)
    try:
        with atomic_write(text, "w") as file:
            file.write("a")
        with usual_mode(tensors):  # as safetensors does
            os.close(os.open(tmp_path / "aside", os.O_CREAT | os.O_WRONLY, 0o600))
            os.rename(tmp_path / "aside", tensors)
        with atomic_write(tmp_path / "new" / "folder" / "text", "w") as file:
            file.write("one")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tensors, text)} == {mode}
    assert is_shared(tmp_path / "new" / "folder") == is_shared(tmp_path)
