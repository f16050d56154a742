"""The GPUs that a command has to itself, with imitated devices: how many, which it sees, and when it asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from zerovl import gpu_leases, gpu_names, own_gpus
from zerovl.errors import ZeroVLError
from zerovl.evaluation.early_helpers import early_helpers
from zerovl.params_file import from_recipe
from zerovl.training import launch


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four GPUs, of which this process has none yet."""
    monkeypatch.setenv("ZEROVL_LEASE", str(tmp_path / "leases"))
    monkeypatch.setenv("ZEROVL_GPUS", "GPU-a,GPU-b,GPU-c,GPU-d")
    monkeypatch.setenv("ZEROVL_DEVICE", "auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("ZEROVL_RUN", "run test")
    monkeypatch.setattr(own_gpus, "_held", [])
    yield
    for held in own_gpus._held:
        held.release()


def test_how_many_a_setting_stands_for() -> None:
    assert [own_gpus.count(asked) for asked in (0, 1, 3)] == [3, 1, 3]
    assert [own_gpus.count_up_to(asked) for asked in (0, 2, 8)] == [3, 2, 3]


def test_torch_may_find_a_gpu_that_cannot_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_names, "_DRIVERS", (tmp_path / "nvidiactl", tmp_path / "kfd"))
    assert gpu_names.torch_may_find_one()
    monkeypatch.setenv("ZEROVL_GPUS", "")  # as without nvidia-smi
    assert not gpu_names.torch_may_find_one()
    (tmp_path / "kfd").touch()
    assert gpu_names.torch_may_find_one()
    with early_helpers(2) as early:
        assert early is None
    monkeypatch.setenv("ZEROVL_DEVICE", "cpu")
    assert not gpu_names.torch_may_find_one()


def test_more_than_there_are_is_an_error_with_both_numbers() -> None:
    words = r"machine\.ranks is 4, to be had: 3 GPUs \(CUDA_VISIBLE_DEVICES is '0,1,2'\); set it to 0"
    with pytest.raises(ZeroVLError, match=words):
        own_gpus.count(4)


def test_a_machine_without_gpus_leases_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZEROVL_GPUS", "")
    assert [own_gpus.count(4), own_gpus.count(0), own_gpus.count_up_to(4), own_gpus.count_up_to(0)] == [0, 0, 0, 0]
    own_gpus.take(0, "train")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2"
    assert not (tmp_path / "leases").exists()


def test_a_process_has_its_gpus_for_good() -> None:
    own_gpus.take(2, "register")
    own_gpus.take(3, "register")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert gpu_leases.look(["GPU-c"]).free == 1


@pytest.mark.parametrize(
    ("asked", "taken", "processes", "seen"),
    [(None, "GPU-b", 2, "GPU-a,GPU-c"), (None, "GPU-d", 3, "GPU-a,GPU-b,GPU-c"), (2, "GPU-a", 2, "GPU-b,GPU-c")],
)
def test_work_that_any_number_does_takes_what_is_free(asked: int | None, taken: str, processes: int, seen: str) -> None:
    other = gpu_leases.take(1, [taken], "run other", print)
    assert own_gpus.take_for(asked, "embed") == processes
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
    other.release()


def test_more_processes_than_gpus_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_gpus.take_for(8, "embed") == 8
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b,GPU-c"
    monkeypatch.setenv("ZEROVL_GPUS", "")
    monkeypatch.setattr(own_gpus, "take", lambda gpus, command: pytest.fail("leases") if gpus else None)
    assert (own_gpus.take_for(None, "embed"), own_gpus.take_for(2, "embed")) == (1, 2)


def test_the_wait_ends_as_params_say(capsys: pytest.CaptureFixture[str]) -> None:
    other = gpu_leases.take(2, ["GPU-b", "GPU-c"], "run other", print)
    words = r"2 GPUs did not come within .*: run other has GPU-b, GPU-c since .*; raise machine\.gpu_wait_minutes"
    with pytest.raises(ZeroVLError, match=words):
        own_gpus.take(2, "train", wait_minutes=1e-9)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2"
    other.release()


def test_training_asks_for_gpus_after_its_settings_and_before_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def is_available() -> bool:
        """As torch's own, after which CUDA_VISIBLE_DEVICES is not read again."""
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(launch.one_rank, "train_rank", lambda params, workspace: 0)
    with pytest.raises(ZeroVLError, match=r"batch_size"):
        launch.launch(from_recipe({}, ["machine.ranks=3", "train.batch_size=100"], "x"), "params.yaml")
    assert seen == []
    assert own_gpus._held == []
    assert launch.launch(from_recipe({}, ["machine.ranks=1"], "x"), "params.yaml") == 0
    assert seen
    assert set(seen) == {"GPU-a"}
