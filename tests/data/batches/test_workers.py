"""The loader's processes: none outlives its parent, whose end or signals do not make it an error."""

import contextlib
import glob
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.runtime import guard
from tests.support.children import Children, children_of, is_alive
from tests.support.loader_batches import SIZES, batches_of
from tests.support.paths import ROOT
from tests.support.shard_fixture import Written, write
from zerovl.data.batches import workers as workers_module
from zerovl.data.batches.workers import OrderedLoader
from zerovl.errors import ZeroVLError


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path, SIZES)


def test_close_in_the_middle_ends_the_workers(written: Written, children: Children) -> None:
    batches = batches_of(written, workers=2)
    next(batches)
    assert len(children()) == 2
    batches.close()
    assert not children()
    batches.close()
    with batches_of(written, workers=1) as batches:
        next(batches)
    assert not children()
    with pytest.raises(StopIteration):
        next(batches)


def in_shared_memory(workers: list[int]) -> list[str]:
    """Files of tensors that these processes have made."""
    return [name for pid in workers for name in glob.glob(f"/dev/shm/torch_{pid}_*")]


def test_close_in_the_middle_frees_what_was_on_its_way(
    written: Written, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "_SECONDS_TO_RECEIVE", 60.0)  # of a machine that may be busy
    batches = batches_of(written, workers=2, epochs=200.0)
    next(batches)
    workers = children()
    deadline = time.monotonic() + 60
    while len(in_shared_memory(workers)) < 12:  # four micro-batches of three tensors that nobody has asked for yet
        assert time.monotonic() < deadline
        time.sleep(0.01)
    step = next(batches)
    batches.close()
    assert len(in_shared_memory(workers)) <= 3
    assert len(step.micro_batches[0].keys) == 4  # what somebody holds is still there
    del step
    assert not in_shared_memory(workers)
    with contextlib.suppress(KeyError), batches_of(written, workers=2, epochs=200.0) as batches:
        next(batches)
        workers = children()
        raise KeyError
    assert not in_shared_memory(workers)


def test_a_killed_worker_is_an_error_with_advice(written: Written, children: Children) -> None:
    with batches_of(written, workers=1, epochs=200.0) as batches:
        next(batches)
        os.kill(children()[0], signal.SIGKILL)
        with pytest.raises(ZeroVLError, match=r"a loader process died .*machine\.loader_workers"):
            list(batches)
    assert not children()


def breaking() -> Iterator[Any]:
    """As torch's iterator, where its thread finds no page-locked memory."""
    words = "Caught RuntimeError in pin memory thread for device 0.\nOriginal Traceback (most recent call last):\n"
    raise RuntimeError(f"{words}torch.AcceleratorError: CUDA error: out of memory\nCUDA kernel errors might be")
    yield


def test_page_locked_memory_that_runs_out_is_the_loaders() -> None:
    loader = OrderedLoader([1], 0, 0, lower="evaluate.batch_size")  # type: ignore[arg-type]
    loader._iterator = breaking()
    with pytest.raises(ZeroVLError, match=r"made \(.*CUDA error: out of memory\); set evaluate\.batch_size lower$"):
        next(loader)


@pytest.mark.parametrize("seconds", [0.1, 60.0])  # it meets the end of the workers, or what they still send
def test_a_worker_that_dies_while_the_loader_closes_is_no_error(
    written: Written, children: Children, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(workers_module, "_SECONDS_TO_RECEIVE", seconds)
    batches = batches_of(written, workers=2, epochs=200.0)
    next(batches)
    stuck = children()[0]
    os.kill(stuck, signal.SIGSTOP)  # so that closing still waits for it when it is killed
    killer = threading.Timer(0.5, os.kill, (stuck, signal.SIGKILL))
    killer.start()
    batches.close()
    killer.join()
    assert not children()


# Imports once, and forks a process for each request; a forked one goes on to the end of the script, so that it ends
# as any Python does.
PARENTS = """
import json, os, signal, sys
from pathlib import Path
from tests.support.children import Children, children_of, is_alive
from tests.support.loader_batches import batches_of
from tests.support.shard_fixture import Written
from zerovl.data.manifest import Manifest
for request in iter(sys.stdin.readline, ""):
    root, ending = json.loads(request)
    said, go = os.open(f"{root}/said", os.O_WRONLY), os.open(f"{root}/go", os.O_RDONLY)
    pid = os.fork()
    if pid == 0:
        break
    os.close(said), os.close(go)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
os.setsid()
os.dup2(go, 0), os.dup2(said, 1), os.close(go), os.close(said)
root = Path(root)
batches = batches_of(Written(Manifest.load(root / "manifest"), root / "shards"), workers=2, epochs=500.0)
list(next(batches).micro_batches)  # both workers have given some
print(os.getpid(), flush=True)
sys.stdin.readline()
exec(ending)
"""


class Parent:
    """A process with two workers that waits for a line, then does `ending`."""

    def __init__(self, parents: subprocess.Popen[str], root: Path, ending: str) -> None:
        self._parents = parents
        for name in ("said", "go"):
            os.mkfifo(root / name)
        assert parents.stdin is not None
        parents.stdin.write(json.dumps([str(root), ending]) + "\n")
        parents.stdin.flush()
        self.said, self.go = open(root / "said"), open(root / "go", "w")  # noqa: SIM115 - closed by `end`
        self.pid = int(self.said.readline())

    def tell(self) -> None:
        """Give it the line that it waits for."""
        self.go.write("\n")
        self.go.flush()

    def status(self) -> int:
        """The exit status, when it has ended."""
        assert self._parents.stdout is not None
        return int(self._parents.stdout.readline())

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.said.close()
        with contextlib.suppress(BrokenPipeError):
            self.go.close()


@pytest.fixture(scope="module")
def parents() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENTS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("ending", ["raise SystemExit(0)", "raise ValueError", "SIGTERM", "SIGKILL"])
def test_no_orphans_however_the_parent_ends(
    parents: subprocess.Popen[str], written: Written, ending: str, tmp_path: Path
) -> None:
    parent = Parent(parents, tmp_path, ending)
    try:
        workers = children_of(parent.pid)
        assert len(workers) == 2
        if ending.startswith("SIG"):
            os.kill(parent.pid, getattr(signal, ending))
        else:
            parent.tell()
        expected = {"raise SystemExit(0)": 0, "raise ValueError": 1}
        assert parent.status() == (expected[ending] if ending in expected else -getattr(signal, ending))
    finally:
        parent.end()
    deadline = time.monotonic() + 30
    while (alive := [pid for pid in workers if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive


def test_workers_outlive_a_signal_to_the_group(
    parents: subprocess.Popen[str], written: Written, tmp_path: Path
) -> None:
    """A scheduler may signal every process of a job; the trainer needs its batches until it has saved."""
    parent = Parent(
        parents,
        tmp_path,
        "for name in (signal.SIGINT, signal.SIGTERM): signal.signal(name, lambda *_: None)\n"
        "print('deaf', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(sum(1 for _ in zip(range(100), batches)))\n"
        "batches.close()",
    )
    try:
        parent.tell()
        assert parent.said.readline() == "deaf\n"
        os.killpg(parent.pid, signal.SIGINT)
        os.killpg(parent.pid, signal.SIGTERM)
        parent.tell()
        assert parent.status() == 0
        assert parent.said.read() == "100\n"
    finally:
        parent.end()


def test_what_removes_shared_memory_holds_no_stderr(
    parents: subprocess.Popen[str], written: Written, tmp_path: Path
) -> None:
    """It outlives the command by two seconds; whoever reads the command's stderr to its end would wait for it."""
    parent = Parent(parents, tmp_path, "batches.close()")
    try:
        workers = children_of(parent.pid)
        assert len(workers) == 2
        for worker in workers:  # each has given a micro-batch of the first step
            [remover] = children_of(worker)
            assert Path(f"/proc/{remover}/comm").read_text().strip() == guard._REMOVER
            assert os.readlink(f"/proc/{remover}/fd/2") == os.devnull
            assert os.readlink(f"/proc/{worker}/fd/2") == os.readlink(f"/proc/{parent.pid}/fd/2")
        parent.tell()
        assert parent.status() == 0
    finally:
        parent.end()
