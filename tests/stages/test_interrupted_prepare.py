"""`prepare` that is killed at any moment, that meets a full disk at any write, or that is not alone."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import held_units, raw_sources
from tests.support.paths import ROOT
from tests.support.prefect_api import wait_for
from tests.support.two_sources import SETTINGS, write_raw
from zerovl.data.manifest import Manifest
from zerovl.data.raw import kept_units, pack, pack_sources
from zerovl.errors import ZeroVLError
from zerovl.files import sha256_file

pytestmark = pytest.mark.usefixtures("one_worker")
KILLS = 10
PATIENCE = 60_000  # milliseconds: who waits for so long has found a fault
# Counts what it does with files, and kills itself at a drawn one: each fork is a start of `prepare`.
SCRIPT = """
import json, os, signal, sys
import pandas, webdataset  # as pyarrow does at its first table, and a shard: once here, and not in each fork
from zerovl import code_closure
from pathlib import Path
from tests.support import raw_sources
from tests.support.raw_sources import run_prepare
from zerovl.data.shard_writing import _Output

root, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
events = 0
code_closure.digests("prepare")  # read once, too

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
    _Output.write = counted(_Output.write, kill_at)
    run_prepare(root, **settings)
    os.write(writing, str(events).encode())
    os._exit(0)

status, count = start(kill_at=0)
for line in sys.stdin:  # the share of the run at which it is killed
    status, _ = start(kill_at=max(1, int(float(line) * int(count))))
    print("status", status, flush=True)
"""


def assert_whole_or_absent(root: Path) -> None:
    """Either there is no manifest, or all that it names is there to the byte."""
    if not (root / "data/manifest/manifest.json").exists():
        return
    for info in Manifest.load(root / "data/manifest").splits.values():
        for shard in info.shards:
            assert sha256_file(root / "data/shards" / shard.path) == shard.sha256


def test_killed_at_random_moments_then_run_again(tmp_path: Path) -> None:
    write_raw(tmp_path)
    draw, killed = random.Random(0), 0
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
            # 0: it took over so much that it was done before
            assert said in ("status -9\n", "status 0\n"), said + child.communicate()[0]
            killed += said == "status -9\n"
            assert_whole_or_absent(tmp_path)
    assert child.returncode == 0
    assert killed > KILLS // 2
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
        shutil.rmtree(tmp_path / "data")
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


def test_ctrl_c_ends_workers_in_the_middle_of_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They do not hear it themselves; what one has in hand would take it for ever."""
    caplog.set_level("INFO")
    write_raw(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    os.mkfifo(data / held_units.PIPE)
    ended = []

    def interrupt() -> None:
        with open(data / held_units.PIPE, "wb") as pipe:  # when a worker has come to it
            (data / held_units.PIPE).unlink()
            wait_for("the first shard, kept", lambda: list(data.glob(".prepare/*.json")))
            assert list(data.glob("shards/a/train/.000001.tar.*.part"))
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            nobody_reads = select.poll()
            nobody_reads.register(pipe, 0)
            ended.append(nobody_reads.poll(PATIENCE))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it is ignored
    try:
        with monkeypatch.context() as patched:
            patched.setenv("ZEROVL_WORKERS", "2")
            patched.setattr(pack_sources, "KeptUnits", held_units.HeldUnits)
            asking = threading.Thread(target=interrupt, daemon=True)
            asking.start()
            with pytest.raises(KeyboardInterrupt):
                raw_sources.run_prepare(tmp_path, **SETTINGS)
            asking.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended[0], "a worker went on"
    assert not (data / "manifest/manifest.json").exists()
    raw_sources.run_prepare(tmp_path, **SETTINGS)
    assert "a/train: 1 shard taken over from a run that was interrupted" in caplog.text
    again = raw_sources.all_bytes(data)
    shutil.rmtree(data)
    raw_sources.run_prepare(tmp_path, **SETTINGS)
    assert raw_sources.all_bytes(data) == again


def test_of_two_at_once_the_second_is_refused_and_the_first_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raw(tmp_path)
    raw_sources.run_prepare(tmp_path, **SETTINGS)
    whole = raw_sources.all_bytes(tmp_path / "data")
    (tmp_path / "data/manifest/manifest.json").unlink()
    at_work, go_on = threading.Event(), threading.Event()

    def pack_when_told(unit: pack.Unit) -> pack.Packed:
        at_work.set()
        assert go_on.wait(120)
        return pack.pack(unit)

    monkeypatch.setattr(kept_units, "pack", pack_when_told)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(raw_sources.run_prepare, tmp_path, **SETTINGS)
        try:
            assert at_work.wait(120)
            before = raw_sources.all_bytes(tmp_path / "data")
            with pytest.raises(
                ZeroVLError, match=r"another `zerovl prepare` is at work here .* wait until it has ended"
            ):
                raw_sources.run_prepare(tmp_path, **SETTINGS)
            assert raw_sources.all_bytes(tmp_path / "data") == before
        finally:
            go_on.set()
        first.result()
    assert raw_sources.all_bytes(tmp_path / "data") == whole
    raw_sources.run_prepare(tmp_path, **SETTINGS)  # the lock is free again


def test_a_disk_without_locks_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    write_raw(tmp_path)
    monkeypatch.setattr(fcntl, "flock", none)
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 5
    assert f"{tmp_path / 'data'}: cannot be locked" in caplog.text
