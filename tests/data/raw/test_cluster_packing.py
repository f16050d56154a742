"""`prepare` on a dask.distributed cluster: a real scheduler and two workers, one of which is killed at its work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL
import pytest

from tests.support.paths import ROOT
from tests.support.raw_sources import all_bytes, run_prepare, run_sources, sample, write_tar, write_zerovl
from zerovl.data.raw import cluster_packing, in_place, pack_sources, tar_index
from zerovl.data.raw.cluster_packing import Seen, check_workers, pack_there
from zerovl.data.raw.kept_units import KeptUnits
from zerovl.data.raw.pack import Unit
from zerovl.data.raw.tar_index import TarTask, index_aside, index_tar, is_indexed, local_state, take_index
from zerovl.errors import ZeroVLError


@contextmanager
def worker(address: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One worker process, of one thread, that runs in a folder of its own."""
    folder.mkdir()
    options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--memory-limit", "0"]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kill_one_at_work(client: Any, processes: dict[int, subprocess.Popen[bytes]], ended: threading.Event) -> None:
    """Kill the first worker that is seen with tasks in its hand, once it is stopped and still has them."""
    pids = client.run(os.getpid)
    while not ended.wait(0.01):
        for address, tasks in client.processing().items():
            if not tasks:
                continue
            process = processes[pids[address]]
            process.send_signal(signal.SIGSTOP)
            if client.processing()[address]:
                process.send_signal(signal.SIGKILL)
                return
            process.send_signal(signal.SIGCONT)


@contextmanager
def a_worker_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two workers that `prepare` uses, the first of which to be at work is killed; gives a client."""
    import distributed

    cluster = distributed.LocalCluster(n_workers=0, protocol="tcp", host="127.0.0.1", dashboard_address=":0")
    address, ended = cluster.scheduler_address, threading.Event()
    with (
        cluster,
        distributed.Client(address, set_as_default=False) as client,
        worker(address, tmp_path / "one") as one,
        worker(address, tmp_path / "two") as two,
    ):
        client.wait_for_workers(2)
        monkeypatch.setenv("ZEROVL_DASK", address)
        killer = threading.Thread(target=kill_one_at_work, args=(client, {one.pid: one, two.pid: two}, ended))
        killer.start()
        try:
            yield client
        finally:
            ended.set()
            killer.join()


def test_a_killed_worker_costs_no_shard_and_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    write_zerovl(tmp_path / "raw" / "photos", "train", 60)
    (tmp_path / "raw" / "photos" / "train" / "7.jpg").write_bytes(b"broken")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROVL_WORKERS", "1")
    manifest = run_prepare(Path(), shard_samples=3)
    expected = all_bytes(Path("data"))
    with a_worker_that_dies(tmp_path, monkeypatch) as client:
        again = run_prepare(Path(), shard_samples=3)
        assert len(client.nthreads()) == 1
    assert again.splits == manifest.splits
    assert all_bytes(Path("data")) == expected
    assert not Path("data/shards/.cluster").exists()


def test_tars_that_stay_are_indexed_there_and_a_killed_worker_costs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROVL_WORKERS", "1")
    web = {"name": "web", "path": "raw/web", "tars": "in_place"}
    for tar in range(8):
        members = [part for n in range(6) for part in sample(f"{tar}{n:04d}", 10 * tar + n)]
        write_tar(Path(f"raw/web/train/{tar:05d}.tar"), members)
    Path("raw/web/train/00003.tar").write_bytes(Path("raw/web/train/00003.tar").read_bytes()[:-9000])  # cut off
    manifest = run_sources(Path(), web)
    expected = all_bytes(Path("data"))
    shutil.rmtree("data")
    monkeypatch.setattr(in_place, "index_tar", lambda task: pytest.fail(f"{task.name} is indexed by this process"))
    with a_worker_that_dies(tmp_path, monkeypatch) as client:
        again = run_sources(Path(), web)
        assert len(client.nthreads()) == 1
    assert again.splits == manifest.splits
    assert all_bytes(Path("data")) == expected  # the indexes too, and no folder of an attempt


def test_an_index_that_was_made_aside_is_as_one_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def index(task: TarTask) -> None:
        attempt = str(tmp_path / "tars" / ".run" / "attempt")
        index_aside(task, attempt)
        take_index(task, attempt)

    def task_now() -> TarTask:
        return TarTask("a.tar", "a.tar", "a.tar", local_state("a.tar"), "tars", "scratch", 1 << 20)

    write_tar(Path("a.tar"), sample("00000", 1))
    index(first := task_now())
    assert is_indexed(first)
    found = all_bytes(Path("tars"))
    index_tar(first)
    assert all_bytes(Path("tars")) == found
    os.utime("a.tar", ns=(1, 1))  # the same bytes under another time: not one picture is decoded
    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "decode", lambda *_: pytest.fail("a picture is decoded"))
        index(touched := task_now())
    assert is_indexed(touched)
    write_tar(Path("a.tar"), [*sample("00000", 1), *sample("00001", 2)])
    index(other := task_now())
    assert is_indexed(other)
    assert len(tar_index.read_index(other).samples) == 2
    assert len(all_bytes(Path("tars"))) == 2  # the rows of the tar as it was are gone


GOOD = Seen("c1", PIL.__version__, ())


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (Seen("c1", PIL.__version__, ("/mnt/raw",)), r"w2 does not see /mnt/raw; mount the folder"),
        (Seen("c2", PIL.__version__, ()), r"w2 runs another zerovl or Pillow \(code c2"),
        (Seen("c1", "1.0", ()), r"Pillow 1\.0"),
        (RuntimeError("no numpy"), r"w2 cannot run zerovl \(RuntimeError: no numpy\)"),
    ],
)
def test_workers_that_would_write_something_else_are_refused_at_the_start(seen: Any, message: str) -> None:
    check_workers({"w1": GOOD, "w2": GOOD}, "c1", "tcp://a")
    with pytest.raises(ZeroVLError, match=message):
        check_workers({"w1": GOOD, "w2": seen}, "c1", "tcp://a")


def test_a_later_worker_without_the_folder_writes_nothing(tmp_path: Path) -> None:
    unit = Unit(str(tmp_path / "shards"), "photos", "train", 0, (), 256, 1000)
    kept = KeptUnits(str(tmp_path / "kept"), "c1", str(tmp_path / "fetched"))
    with pytest.raises(cluster_packing.NotSharedError, match=r"does not see .*mark; mount the folder"):
        pack_there(kept, unit, str(tmp_path / "mark"), PIL.__version__)
    assert not list(tmp_path.iterdir())


def test_a_later_worker_of_another_program_writes_nothing(tmp_path: Path) -> None:
    unit = Unit(str(tmp_path / "shards"), "photos", "train", 0, (), 256, 1000)
    (tmp_path / "mark").touch()
    own = cluster_packing.look([]).code
    for code, pillow, message in (
        ("c1", PIL.__version__, r"this worker runs another zerovl or Pillow .*prepare has c1, "),
        (own, "1.0", r"prepare has .*, 1\.0\) and might write other bytes; install the same ones there, or stop"),
    ):
        kept = KeptUnits(str(tmp_path / "kept"), code, str(tmp_path / "fetched"))
        with pytest.raises(cluster_packing.NotSharedError, match=message):
            pack_there(kept, unit, str(tmp_path / "mark"), pillow)
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]


class DoneMeanwhile:
    """A future whose wait ends just before it is done; then it has a result, or an error."""

    def __init__(self, outcome: object) -> None:
        self._outcome = outcome

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> object:
        if timeout is not None:
            raise TimeoutError
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def test_a_unit_that_is_done_as_the_wait_ends() -> None:
    client: Any = None
    done: Any = DoneMeanwhile("packed")
    assert cluster_packing._waited(done, client) == "packed"
    failed: Any = DoneMeanwhile(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        cluster_packing._waited(failed, client)


def test_without_the_package_the_fix_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zerovl(tmp_path / "raw" / "photos", "train", 1)
    monkeypatch.setenv("ZEROVL_DASK", "tcp://10.0.0.1:8786")
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr(pack_sources.TarsInPlace, "index", lambda *_: pytest.fail("hours of indexing came first"))
    with pytest.raises(ZeroVLError, match=r"ZEROVL_DASK is 'tcp://10\.0\.0\.1:8786', .*pip install 'zerovl\[dask\]'"):
        run_prepare(tmp_path)


def test_an_address_where_nobody_answers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    write_zerovl(tmp_path / "raw" / "photos", "train", 1)
    monkeypatch.setenv("ZEROVL_DASK", "nonsense://x")
    with pytest.raises(ZeroVLError, match=r"ZEROVL_DASK is 'nonsense://x', where no dask scheduler answers"):
        run_prepare(tmp_path)
