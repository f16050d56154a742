"""One job at a time, and the lock is free as soon as the last process of the holder is gone."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.runtime import gpu_lock

HOLDER = """
import subprocess, sys, time
from flows.runtime.gpu_lock import hold_gpu_lock
with hold_gpu_lock("run first", print) as descriptor:
    job = subprocess.Popen(["sleep", "300"], pass_fds=[descriptor])
    print(job.pid, flush=True)
    time.sleep(300)
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(gpu_lock.VARIABLE, str(tmp_path / "lock"))
    return tmp_path / "lock"


def test_it_is_held_until_the_last_process_of_the_job_is_gone(file: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    job = int(holder.stdout.readline())
    said: list[str] = []

    def hear(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            holder.kill()
            holder.wait()
            time.sleep(1.5)
            said.append("the flow is dead, its job lives")
            subprocess.run(["kill", "-9", str(job)], check=True)

    with gpu_lock.hold_gpu_lock("run second", hear):
        assert said[0].startswith(f"waiting for the GPU lock {file}: run first, since 2")
        assert said[1:] == ["the flow is dead, its job lives", "the GPU lock is free: going on"]
        assert file.read_text().startswith("run second, since")


def test_a_free_lease_is_taken_without_a_word(file: Path) -> None:
    said: list[str] = []
    with gpu_lock.hold_gpu_lock("a", said.append):
        pass
    with gpu_lock.hold_gpu_lock("b", said.append):
        pass
    assert said == []
    assert file.stat().st_mode & 0o777 == 0o666
