"""`prepare` that is killed at any moment, that meets a full disk at any write, or that is not alone."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import raw_sources
from tests.support.paths import ROOT
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError
from zerovl.files import sha256_file

KILLS = 12
SETTINGS = {"shard_samples": 3, "tokenizer_vocab": 60}
# Counts what it does with files, and kills itself at a drawn one: each fork is a start of `prepare`.
SCRIPT = """
import json, os, signal, sys
import pandas  # as pyarrow does at its first table: once here, and not in each fork
from pathlib import Path
from tests.support import raw_sources
from tests.support.raw_sources import run_prepare
from zerovl.data.raw.pack import _Shard

root, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
events = 0

def counted(function, kill_at):
    def call(*arguments, **options):
        global events
        events += 1
        if events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

def start(kill_at):
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading) as said:
            count = said.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), count
    os.replace, os.fsync = counted(os.replace, kill_at), counted(os.fsync, kill_at)
    _Shard._write = counted(_Shard._write, kill_at)
    run_prepare(root, **settings)
    os.write(writing, str(events).encode())
    os._exit(0)

status, count = start(kill_at=0)
for line in sys.stdin:  # the share of the run at which it is killed
    status, _ = start(kill_at=max(1, int(float(line) * int(count))))
    print("status", status, flush=True)
"""


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_WORKERS", "1")


def write_raw(root: Path) -> None:
    raw_sources.write_zerovl(root / "raw/a", "train", 5)
    raw_sources.write_zerovl(root / "raw/a", "valid", 2, first=50)
    rows = [{"image": raw_sources.jpeg(number), "caption": f"number {number}"} for number in range(4)]
    (root / "raw/b").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), root / "raw/b/train.parquet")


def assert_whole_or_absent(root: Path) -> None:
    """Either there is no manifest, or all that it names is there to the byte."""
    if not (root / "data/manifest/manifest.json").exists():
        return
    for info in Manifest.load(root / "data/manifest").splits.values():
        for shard in info.shards:
            assert sha256_file(root / "data/shards" / shard.path) == shard.sha256


def test_killed_at_random_moments_then_run_again(tmp_path: Path) -> None:
    write_raw(tmp_path)
    draw = random.Random(0)
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), json.dumps(SETTINGS)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        for _ in range(KILLS):
            child.stdin.write(f"{draw.random()}\n")
            child.stdin.flush()
            said = next(line for line in child.stdout if line.startswith(("status", "Traceback")))
            assert said == "status -9\n"
            assert_whole_or_absent(tmp_path)
    assert child.returncode == 0
    raw_sources.run_prepare(tmp_path, **SETTINGS)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (tmp_path / "raw").rename(fresh / "raw")
    raw_sources.run_prepare(fresh, **SETTINGS)
    assert raw_sources.all_bytes(tmp_path / "data") == raw_sources.all_bytes(fresh / "data")


def test_a_disk_that_is_full_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path)
    sync, writes, full_at = os.fsync, 0, 0

    def fsync(descriptor: int) -> None:
        nonlocal writes
        writes += 1
        if writes == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    raw_sources.run_prepare(tmp_path, **SETTINGS)
    whole, total = raw_sources.all_bytes(tmp_path / "data"), writes
    for full_at in range(1, total):  # noqa: B007 (read by fsync); the last one syncs the folder of a whole manifest
        writes = 0
        with pytest.raises(ZeroVLError, match=r"cannot write on \(No space left on device\), .*; make room"):
            raw_sources.run_prepare(tmp_path, **SETTINGS)
        assert not (tmp_path / "data/manifest/manifest.json").exists()
        assert list((tmp_path / "data").rglob("*.part")) == []
    full_at = 0
    raw_sources.run_prepare(tmp_path, **SETTINGS)
    assert raw_sources.all_bytes(tmp_path / "data") == whole


def test_a_disk_that_is_full_where_pictures_of_a_table_are_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path)

    def full(path: Path, contents: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zerovl.data.raw.table_records._write", full)
    with pytest.raises(ZeroVLError, match=r"No space left on device"):
        raw_sources.run_prepare(tmp_path)
    assert not list((tmp_path / "data").rglob("*.pictures"))
    assert not (tmp_path / "data/manifest/manifest.json").exists()


def test_a_second_one_is_refused_and_takes_nothing_away(tmp_path: Path) -> None:
    write_raw(tmp_path)
    raw_sources.run_prepare(tmp_path)
    before = raw_sources.all_bytes(tmp_path / "data")
    first = os.open(tmp_path / "data", os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    with pytest.raises(ZeroVLError, match=r"another `zerovl prepare` is at work here .* wait until it has ended"):
        raw_sources.run_prepare(tmp_path)
    assert raw_sources.all_bytes(tmp_path / "data") == before
    os.close(first)
    raw_sources.run_prepare(tmp_path)


def test_a_disk_without_locks_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    write_raw(tmp_path)
    monkeypatch.setattr(fcntl, "flock", none)
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 5
    assert f"{tmp_path / 'data'}: cannot be locked" in caplog.text
