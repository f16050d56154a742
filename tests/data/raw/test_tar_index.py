"""The index of a tar in a folder that checkouts share: made again after an error, and never taken for another's."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.raw.test_in_place import write_good
from zerovl.data.raw import tar_index
from zerovl.data.raw.tar_index import TarTask, index_tar, is_indexed, kept_head, local_state, read_index
from zerovl.errors import ZeroVLError


def task_of(root: Path, checkout: str) -> TarTask:
    """A tar at the same place of each checkout, and one folder of indexes."""
    tar = root / checkout / "raw/0.tar"
    return TarTask(
        "0.tar", str(tar), "raw/0.tar", local_state(str(tar)), str(root / ".tars"), str(root / checkout), 10000
    )


def broken(*_: object) -> None:
    raise OSError(24, "Too many open files")


def test_a_tar_that_could_not_be_read_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_good(tmp_path / "a/raw/0.tar", 0)
    task = task_of(tmp_path, "a")
    for reader in ("sha256_file", "picture_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(tar_index, reader, broken)
            index_tar(task)
        assert read_index(task).head.unfit == "cannot be read: Too many open files"
        assert not is_indexed(task)
    index_tar(task)
    assert is_indexed(task)
    assert len(read_index(task).samples) == 3
    os.utime(task.path, (1, 1))
    monkeypatch.setattr(tar_index, "write_json", broken)  # of the folder of indexes: nothing about the tar
    touched = task_of(tmp_path, "a")
    with pytest.raises(OSError, match="Too many open files"):
        index_tar(touched)
    assert is_indexed(task)


def test_checkouts_that_share_the_folder(tmp_path: Path) -> None:
    write_good(tmp_path / "a/raw/0.tar", 0)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    one, other = task_of(tmp_path, "a"), task_of(tmp_path, "b")
    index_tar(one)
    index_tar(other)  # equal bytes, with a time of their own
    assert is_indexed(other)
    assert len(read_index(one).samples) == 3
    larger = replace(other, max_pixels=20000)  # another program's, as it were
    index_tar(larger)
    assert is_indexed(other)
    before = read_index(other).head.sha256
    write_good(tmp_path / "b/raw/0.tar", 50)
    index_tar(task_of(tmp_path, "b"))
    assert not one.rows(before).exists()
    with pytest.raises(ZeroVLError, match=r"index of 0\.tar has gone meanwhile, or is of other bytes .* run `zerovl"):
        read_index(one)
    index_tar(one)
    assert kept_head(one) == read_index(one).head
    assert read_index(larger).head.sha256 == before
