"""ZEROVL_DEVICE decides for a whole process, and for the processes that it starts."""

import os

import pytest
import torch

from tests.support.paths import ROOT
from zerovl import memory
from zerovl.commands import machine_checks
from zerovl.device import VARIABLE, gpu_count, own_device, uses_gpu
from zerovl.distributed.join import join
from zerovl.errors import ZeroVLError
from zerovl.model.text_encoder import pick_device
from zerovl.params_file import from_recipe
from zerovl.training import launch

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as far as torch tells."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_tests_without_the_mark_are_given_the_cpu() -> None:
    assert os.environ[VARIABLE] == "cpu"


def test_cpu_leaves_gpus_alone(two_gpus: None) -> None:
    assert not uses_gpu()
    assert gpu_count() == 0
    assert own_device(1) == CPU
    assert pick_device("auto") == CPU
    assert pick_device("cuda") == torch.device("cuda")  # one that is named is another matter
    with join() as ranks:
        assert ranks.device == CPU


@pytest.mark.parametrize("value", [None, "", "auto", "cuda"])
def test_gpus_are_used_where_they_are_there(value: str | None, two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv(VARIABLE)
    else:
        monkeypatch.setenv(VARIABLE, value)
    assert (uses_gpu(), gpu_count()) == (True, 2)
    assert own_device(1) == torch.device("cuda", 1)
    assert pick_device("auto").type == "cuda"


def test_cuda_where_there_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(VARIABLE, "cuda")
    words = r"ZEROVL_DEVICE is 'cuda' and torch finds no GPU; .*CUDA_VISIBLE_DEVICES, or unset it"
    with pytest.raises(ZeroVLError, match=words), join():
        pass
    with pytest.raises(ZeroVLError, match=words):
        launch.launch(from_recipe({}, [], "x"), "params.yaml")
    (finding,) = [finding for finding in machine_checks.check_torch() if finding.subject == "gpu"]
    assert finding.level == "FAIL"
    monkeypatch.setenv(VARIABLE, "auto")
    assert own_device() == CPU


def test_an_unknown_device_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "gpu")
    with pytest.raises(ZeroVLError, match="ZEROVL_DEVICE is 'gpu'; set it to cpu or cuda, or unset it"):
        own_device()


def test_more_ranks_than_gpus_are_refused(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cuda")
    three = from_recipe({}, ["machine.ranks=3", "train.batch_size=192"], "x")
    with pytest.raises(ZeroVLError, match=r"machine\.ranks is 3, this machine has 2 GPUs; set it to 0"):
        launch.launch(three, "params.yaml")


def test_free_memory_ends_at_the_share_of_the_card_that_this_process_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"mem_get_info": (70, 100), "memory_reserved": 10, "memory_allocated": 4}
    for name, value in values.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, value=value: value)
    for share, free in ((1.0, 70 + 6), (0.5, 50 - 10 + 6), (0.05, 6)):
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _device, share=share: share)
        assert memory.free_memory(torch.device("cuda")) == free


def test_nobody_else_asks_torch_for_gpus() -> None:
    asking = {
        path.relative_to(ROOT).as_posix()
        for folder in ("zerovl", "flows")
        for path in (ROOT / folder).rglob("*.py")
        if "cuda.is_available" in (text := path.read_text(encoding="utf-8")) or "cuda.device_count" in text
    }
    assert asking == {"zerovl/device.py"}
