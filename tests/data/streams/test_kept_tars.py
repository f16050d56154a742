"""Copies of tars that were cut short: none stays on the disk."""

import io
import os
import time
from pathlib import Path

import pytest

from zerovl.data.streams import kept_tars
from zerovl.data.streams.kept_tars import KeptTars
from zerovl.errors import ZeroVLError

ADDRESS = "s3://bucket/0.tar"


class Cut(io.BytesIO):
    """A stream whose server is gone when its bytes are read; as S3's client it says so in words of its own."""

    def read(self, size: int | None = -1) -> bytes:
        if data := super().read(size):
            return data
        raise ZeroVLError(f"{ADDRESS}: cannot be read")


def test_half_a_copy_is_removed_where_the_client_of_s3_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_tars, "open_object", lambda *_: Cut(b"half"))
    with pytest.raises(ZeroVLError, match=rf"^{ADDRESS}: cannot be read$"):
        KeptTars(tmp_path / "cache", 1 << 30)(ADDRESS)
    assert not list((tmp_path / "cache").iterdir())


def test_what_killed_processes_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tars, "open_object", lambda *_: io.BytesIO(b"whole"))
    left, growing, kept = (tmp_path / name for name in ("a.tar.temp1", "b.tar.temp2", "c.tar"))
    for path in (left, growing, kept):
        path.write_bytes(b"half")
    for path in (left, kept):
        os.utime(path, (0, 0))
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 48 * 3600)  # this machine's, and not the file system's
    with KeptTars(tmp_path, 1 << 30)(ADDRESS) as stream:  # type: ignore[attr-defined]
        assert stream.read() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [growing.name, kept.name, kept_tars._name(ADDRESS)]
    )
