"""What a next `prepare` takes over from one that was interrupted, and what it packs again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import raw_sources
from tests.support.two_sources import SETTINGS, write_raw
from zerovl.data.filtering.sample_filters import SampleFilters
from zerovl.data.raw import kept_units, pack
from zerovl.data.raw.records import Picture, Record

pytestmark = pytest.mark.usefixtures("one_worker")


class Interrupted(BaseException):
    """What ends a run in the middle."""


def interrupted_after(units: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends once so many units are packed."""
    packed = 0

    def pack_some(unit: pack.Unit) -> pack.Packed:
        nonlocal packed
        packed += 1
        if packed > units:
            raise Interrupted
        return pack.pack(unit)

    monkeypatch.setattr(kept_units, "pack", pack_some)
    with pytest.raises(Interrupted):
        raw_sources.run_prepare(root, **SETTINGS)
    shutil.rmtree(root / "data/shards")  # as DVC does
    shutil.rmtree(root / "data/manifest")


def packed_again(root: Path, monkeypatch: pytest.MonkeyPatch, **settings: int) -> list[str]:
    """Names of the units that the next run packs itself."""
    names = []

    def pack_and_note(unit: pack.Unit) -> pack.Packed:
        names.append(unit.name)
        return pack.pack(unit)

    monkeypatch.setattr(kept_units, "pack", pack_and_note)
    raw_sources.run_prepare(root, **SETTINGS | settings)
    assert not (root / "data/.prepare").exists()
    return names


def test_shards_that_were_whole_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_raw(tmp_path)
    (tmp_path / "raw/a/train/1.jpg").unlink()  # a quarantined row goes along
    fresh = packed_again(tmp_path, monkeypatch)
    whole = raw_sources.all_bytes(tmp_path / "data")
    assert fresh == [f"a/train/{0:06}.tar", f"a/train/{1:06}.tar", f"a/valid/{0:06}.tar", *fresh[3:]]
    assert len(fresh) == 5
    interrupted_after(2, tmp_path, monkeypatch)
    assert packed_again(tmp_path, monkeypatch) == fresh[2:]
    assert "a/train: 2 shards taken over from a run that was interrupted" in caplog.text
    assert raw_sources.all_bytes(tmp_path / "data") == whole


def test_what_changed_in_between_is_packed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path)
    fresh = packed_again(tmp_path, monkeypatch)
    interrupted_after(3, tmp_path, monkeypatch)
    (tmp_path / "raw/a/train/0.jpg").write_bytes(raw_sources.jpeg(99))
    assert packed_again(tmp_path, monkeypatch) == [fresh[0], *fresh[3:]]
    interrupted_after(3, tmp_path, monkeypatch)
    assert packed_again(tmp_path, monkeypatch, max_side=20) == fresh
    interrupted_after(3, tmp_path, monkeypatch)
    first = tmp_path / "raw/a/train/0.jpg"
    before = first.stat()
    first.write_bytes(first.read_bytes()[:-1] + b"x")  # by a tool that puts size and time back
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert packed_again(tmp_path, monkeypatch) == [fresh[0], *fresh[3:]]
    interrupted_after(3, tmp_path, monkeypatch)
    for kept in (tmp_path / "data/.prepare").glob("*.tar"):
        kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert packed_again(tmp_path, monkeypatch) == fresh


def test_what_filters_left_out_is_taken_over_too(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2)
    wide = raw_sources.encoded(raw_sources.picture(1, (300, 30)))
    (tmp_path / "raw/a/train/1.jpg").write_bytes(wide)
    records = tuple(
        Record("here", number, ("a caption",), (number,), Picture(str(tmp_path / f"raw/a/train/{number}.jpg")))
        for number in range(2)
    )
    filters = SampleFilters(max_aspect=3)
    unit = pack.Unit(str(tmp_path / "shards"), "a", "train", 0, records, 0, 10**6, filters)
    kept = kept_units.KeptUnits(str(tmp_path / "kept"), "code", str(tmp_path / "passing"))
    first = kept.pack(unit)
    (tmp_path / "shards" / unit.name).unlink()
    again = kept.pack(unit)
    assert (first.taken_over, again.taken_over, len(first.left_out)) == (False, True, 1)
    assert replace(again, taken_over=False) == first
