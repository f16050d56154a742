"""Memory of large tensors: freed, it is kept for the next ones and given back when asked for; or it is large pages."""

import os
import subprocess
import sys
from functools import partial

import pytest

from tests.support.paths import ROOT
from zerovl import cli, heap, interpreter, log
from zerovl.training import worker

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"

pytestmark = pytest.mark.skipif(heap._glibc() is None, reason="another C library")

SCRIPT = """
import ctypes, resource, sys
import numpy as np
from zerovl import heap

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a page of 2 MiB would be counted as one

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(64 << 20, np.uint8)
    new_pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    kept = resident()
    heap.give_back()
    print(new_pages * resource.getpagesize() >> 20, kept - resident() >> 20)

if sys.argv[1] == "kept":
    heap.keep_freed()
work()
"""


def run(how: str, **environment: str) -> tuple[int, int]:
    """MiB of pages that were new, and MiB given back at the end."""
    command = [sys.executable, "-c", SCRIPT, how]
    known = {name: value for name, value in os.environ.items() if name not in heap._ASKED_FOR}
    known |= {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, env=known, stdout=subprocess.PIPE, text=True, check=True)
    new, returned = map(int, done.stdout.split())
    return new, returned


def test_what_is_kept_is_taken_from_the_kernel_once() -> None:
    new, _ = run("as it is")
    assert new > 1000  # 20 x 64 MiB
    new, returned = run("kept")
    assert new < 100
    assert returned > 50


def test_what_the_environment_asks_for_stays() -> None:
    new, _ = run("kept", MALLOC_MMAP_THRESHOLD_=str(1 << 20))
    assert new > 1000


@pytest.mark.parametrize(("command", "keeps"), [("train", False), ("evaluate", True), ("embed", True)])
def test_a_command_keeps_what_is_freed_unless_it_trains(
    command: str, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for name in ("keep_freed", "prepare_training"):
        monkeypatch.setattr(heap, name, partial(called.append, name))
    monkeypatch.setattr(interpreter, "of_its_own", lambda answer: answer())
    monkeypatch.setattr(cli, "_end_quietly_from_now_on", lambda: None)  # this process is pytest's
    monkeypatch.setattr(log, "setup", lambda: sys.exit("far enough"))
    words = {"embed": ["m", "--images", "i", "--out", "o"]}.get(command, [])
    monkeypatch.setattr(sys, "argv", ["zerovl", command, *words])
    with pytest.raises(SystemExit, match="far enough"):
        cli.main()
    assert called == ["keep_freed" if keeps else "prepare_training"]


def test_a_rank_takes_large_pages_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "of_its_own", lambda command: 0)
    forget(monkeypatch, LARGE_PAGES, *heap._GPU_ASKED_FOR)
    worker.main()
    assert os.environ[LARGE_PAGES] == "1"
    monkeypatch.setenv(LARGE_PAGES, "0")
    worker.main()
    assert os.environ[LARGE_PAGES] == "0"


def test_a_rank_s_segments_grow_unless_the_environment_sets_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "of_its_own", lambda command: 0)
    forget(monkeypatch, LARGE_PAGES, *heap._GPU_ASKED_FOR)
    worker.main()
    command = [sys.executable, "-c", "import torch; print(torch._C._accelerator_getAllocatorSettings())"]
    said = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True
    ).stdout  # refuses what it does not know
    assert said.strip() == "expandable_segments:True"
    for name in heap._GPU_ASKED_FOR:
        forget(monkeypatch, *heap._GPU_ASKED_FOR)
        monkeypatch.setenv(name, "max_split_size_mb:512")
        worker.main()
        assert [each for each in heap._GPU_ASKED_FOR if each in os.environ] == [name]


def forget(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Unset variables that the code sets, so that they are as before afterwards."""
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
