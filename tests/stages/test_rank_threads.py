"""How many threads a rank has, which OpenMP reads when torch is loaded: the machine's cores over the ranks."""

import os

import pytest

from zerovl import cores, gpu_names
from zerovl.errors import ZeroVLError
from zerovl.params_file import from_recipe
from zerovl.stages import train

CORES = 64


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 cores and eight GPUs."""
    monkeypatch.setattr(cores, "core_count", lambda: CORES)
    monkeypatch.setenv("ZEROVL_DEVICE", "auto")
    monkeypatch.setenv("ZEROVL_GPUS", ",".join(f"GPU-{number}" for number in range(8)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)


def threads(*settings: str) -> int:
    train.set_threads(from_recipe({}, settings, "x"))
    return int(os.environ["OMP_NUM_THREADS"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["machine.ranks=0"], CORES // 8),
        (["machine.ranks=2"], CORES // 2),
        (["machine.ranks=0", "machine.threads=5"], 5),
        (["machine.ranks=128", "train.micro_batch=1"], 1),
    ],
)
def test_ranks_share_the_cores(settings: list[str], expected: int) -> None:
    assert threads(*settings) == expected


@pytest.mark.parametrize(("visible", "expected"), [("1,2", CORES // 2), ("", CORES)])
def test_gpus_that_are_hidden_have_no_rank(visible: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert threads() == expected


def test_one_rank_on_the_cpu_has_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_DEVICE", "cpu")
    assert threads() == CORES


def test_a_driver_that_does_not_answer_is_told_by_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> gpu_names.Visible:
        raise ZeroVLError("nvidia-smi did not answer")

    monkeypatch.setattr(gpu_names, "visible", fails)
    assert threads() == CORES


def test_what_is_set_outside_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads("machine.threads=5") == 3
