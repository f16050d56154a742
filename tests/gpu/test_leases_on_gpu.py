"""GPUs are leased by the names that the driver gives them: who comes second waits, and has them when the first ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zerovl import gpu_names, lease_files

pytestmark = pytest.mark.gpu

# Takes GPUs as `zerovl train` does, says which and what CUDA then shows of them, and keeps them until its input ends.
HOLDER = """
import os, sys
from zerovl import gpu_names, own_gpus
own_gpus.take(own_gpus.count(int(sys.argv[1])), "train", float(sys.argv[2]))
import torch
seen = [f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in range(torch.cuda.device_count())]
print(os.environ[gpu_names.VISIBLE], ",".join(seen), flush=True)
sys.stdin.read()
"""
ALL = 0


def holder(folder: Path, count: int, wait_minutes: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(count), str(wait_minutes)],
        env={**os.environ, lease_files.VARIABLE: str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def has(process: subprocess.Popen[str]) -> list[str]:
    """The names of the GPUs that a process has leased, once it has; CUDA shows it those and no others."""
    assert process.stdout is not None
    leased, seen = process.stdout.readline().split()
    assert seen == leased
    return leased.split(",")


def test_who_comes_second_waits(device: torch.device, tmp_path: Path) -> None:
    there = gpu_names.visible().names
    assert there
    first = holder(tmp_path, ALL)
    try:
        assert sorted(has(first)) == sorted(there)
        impatient = holder(tmp_path, 1, wait_minutes=0.01)
        _, refused = impatient.communicate()
        assert impatient.returncode != 0
        assert f"(process {first.pid}) has" in refused
        assert "raise machine.gpu_wait_minutes" in refused
        second = holder(tmp_path, 1)
        try:
            assert second.stderr is not None
            assert "waiting for" in second.stderr.readline()
            first.kill()
            assert has(second) == [there[0]]
        finally:
            second.kill()
            second.communicate()
    finally:
        first.kill()
        first.communicate()
