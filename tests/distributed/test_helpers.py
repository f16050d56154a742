"""Helpers of a shared piece of work: one that ends before the others is named (test_sharing.py has a whole one)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT
from zerovl.distributed.helper_processes import start, started
from zerovl.distributed.helpers import shared_work
from zerovl.errors import ZeroVLError

MODULE = "tests.support.helping"


@pytest.fixture(autouse=True)
def modules_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def _share(count: int, job: str) -> int:
    with shared_work(count, MODULE, job) as ranks:
        return int(ranks.collectives.sum(torch.tensor([ranks.rank])))


def test_one_rank_starts_nothing() -> None:
    assert _share(1, "killed") == 0


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("killed", r"rank 1 of 2 \(pid \d+\) died by SIGKILL \(if nobody sent it, .*\); nothing was written\. Run it"),
        ("damaged", "^the shard of rank 1 is damaged; get it again$"),
    ],
)
def test_a_helper_that_ends_early_is_named(job: str, message: str) -> None:
    with pytest.raises(ZeroVLError, match=message):
        _share(2, job)


def test_early_helpers_that_do_not_fit_are_killed_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "waiting.py").write_text("import time; time.sleep(600)")
    with started(3, "waiting") as early, shared_work(1, "waiting", "", early) as ranks:
        assert ranks.world_size == 1
        assert [helper.poll() for helper in early.running.values()] == [-signal.SIGKILL] * 2


def test_ctrl_c_does_not_end_a_helper_that_still_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 ends it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "importing.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    assert start("importing", tmp_path, 1, 2).wait(60) == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_helper_imports_and_ends_as_rank_0_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few collections, and without taking apart what it imported: rank 0 would wait for both."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "helping_here.py").write_text(
        "import gc, sys\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "class Kept:\n"
        "    def __del__(self):\n"
        "        (folder / 'taken apart').touch()\n"
        "sys.kept = Kept()\n"
        "(folder / 'said').write_text(f'{gc.get_threshold()[0]} {sys.argv[2:4]} {__name__}')\n"
        "sys.exit(7)\n"
    )
    assert start("helping_here", tmp_path, 1, 2).wait(60) == 7
    assert (tmp_path / "said").read_text() == "50000 ['1', '2'] __main__"
    assert not (tmp_path / "taken apart").exists()
