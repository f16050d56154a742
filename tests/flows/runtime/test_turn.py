"""One job at a time on a CPU or of code that leases no GPUs; a turn ends with the last process of its holder."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.runtime.turn import devices_to_hold, hold_turn
from tests.support.paths import ROOT
from zerovl import gpu_leases, lease_files

HOLDER = """
import subprocess, sys, time
from flows.runtime.turn import hold_turn
with hold_turn("run first", ("cpu",), print) as descriptors:
    job = subprocess.Popen(["sleep", "300"], pass_fds=descriptors)
    print(job.pid, flush=True)
    time.sleep(300)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(lease_files.VARIABLE, str(tmp_path / "leases"))
    monkeypatch.setattr(gpu_leases, "_POLL", 0.02)
    return tmp_path / "leases"


def test_it_is_held_until_the_last_process_of_the_job_is_gone() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    job = int(holder.stdout.readline())
    said: list[str] = []

    def hear(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            holder.kill()
            holder.wait()
            time.sleep(0.1)
            said.append("the flow is dead, its job lives")
            subprocess.run(["kill", "-9", str(job)], check=True)

    with hold_turn("run second", devices_to_hold(ROOT), hear) as descriptors:
        assert len(descriptors) == 1
        assert said[0].startswith("waiting for the CPU: run first has cpu since 2")
        assert said[1] == "the flow is dead, its job lives"
        assert said[2].startswith("has cpu after ")
        (entry,) = gpu_leases.look(gpu_leases.CPU).holders.values()
        assert entry
        assert entry.holder == "run second"


def test_a_free_turn_is_taken_without_a_word(place: Path) -> None:
    said: list[str] = []
    for holder in ("a", "b"):
        with hold_turn(holder, gpu_leases.CPU, said.append):
            pass
    assert said == []
    assert (place / "cpu.lease").stat().st_mode & 0o777 == 0o666


def test_where_there_are_gpus_the_command_leases_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_DEVICE", "auto")
    monkeypatch.setenv("ZEROVL_GPUS", "GPU-a")
    with hold_turn("a", devices_to_hold(ROOT), print) as descriptors:
        assert descriptors == ()
    assert not place.exists()


def test_code_of_before_the_leases_has_all_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `reproduce` checks out may be of a commit whose commands take what they see."""
    monkeypatch.setenv("ZEROVL_DEVICE", "auto")
    monkeypatch.setenv("ZEROVL_GPUS", "GPU-a,GPU-b")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "zerovl").mkdir()
    with hold_turn("run old", devices_to_hold(tmp_path), print) as descriptors:
        assert len(descriptors) == 2
        assert gpu_leases.look(("GPU-a", "GPU-b")).free == 0
    assert gpu_leases.look(("GPU-a", "GPU-b")).free == 2
    monkeypatch.setenv("ZEROVL_DEVICE", "cpu")
    assert devices_to_hold(tmp_path) == gpu_leases.CPU
