"""Which GPUs there are, by nvidia-smi's list and CUDA_VISIBLE_DEVICES; none is needed."""

import subprocess
from typing import Any

import pytest

from zerovl import gpu_names
from zerovl.errors import ZeroVLError
from zerovl.gpu_names import Gpu, Visible, listed, selected, visible

# As `nvidia-smi -L` of a node with one whole GPU and one in two MIG devices prints it.
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-ab1d4b2a-0bb6-7ab3-6cc9-a21ea4e0f6b7)
  MIG 3g.20gb     Device  0: (UUID: MIG-2e1c5a3f-1f2a-5f5f-9d2a-1d2c3b4a5968)
  MIG 3g.20gb     Device  1: (UUID: MIG-9bd2a1e4-3c4d-5a6b-8c7d-6e5f4a3b2c1d)
"""
WHOLE, FIRST, SECOND = (
    "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f",
    "MIG-2e1c5a3f-1f2a-5f5f-9d2a-1d2c3b4a5968",
    "MIG-9bd2a1e4-3c4d-5a6b-8c7d-6e5f4a3b2c1d",
)
DIVIDED = "GPU-ab1d4b2a-0bb6-7ab3-6cc9-a21ea4e0f6b7"


def test_gpus_and_their_parts() -> None:
    assert listed(LISTED) == [Gpu(WHOLE), Gpu(DIVIDED, (FIRST, SECOND))]
    assert listed("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n") == []


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        (None, [WHOLE, FIRST, SECOND]),
        ("", []),
        ("0", [WHOLE]),
        ("1,0", [FIRST, WHOLE]),
        ("0, 7, 1", [WHOLE]),  # what comes after an entry that names nothing is ignored
        ("-1", []),
        ("GPU-5c89", [WHOLE]),
        (WHOLE, [WHOLE]),
        (DIVIDED, [FIRST]),
        (f"{SECOND},0", [SECOND, WHOLE]),
        ("GPU-", []),  # of both
        ("0,GPU-5c89852c", []),  # one twice
        ("NoDevFiles", []),
    ],
)
def test_what_the_environment_leaves(limit: str | None, names: list[str]) -> None:
    assert list(selected(listed(LISTED), limit)) == names


def test_a_name_that_is_a_number_is_a_name_first() -> None:
    imitated = [Gpu("2"), Gpu("3")]
    assert [selected(imitated, limit) for limit in ("2", "3,2", "0", "7")] == [("2",), ("3", "2"), ("2",), ()]


def test_a_process_sees_one_mig_device() -> None:
    assert Visible((FIRST, SECOND)).usable == 1
    assert Visible((WHOLE, "GPU-2")).usable == 2
    assert Visible(()).usable == 0


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What stands in for nvidia-smi: raises `error`, or prints `text`."""
    answer: dict[str, Any] = {"text": LISTED, "error": None}

    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        assert command == ["nvidia-smi", "-L"]
        if answer["error"]:
            raise answer["error"]
        return subprocess.CompletedProcess(command, 0, answer["text"], "")

    monkeypatch.setattr(subprocess, "run", run)
    for name in ("CUDA_VISIBLE_DEVICES", "ZEROVL_DEVICE", "ZEROVL_GPUS"):
        monkeypatch.delenv(name, raising=False)
    gpu_names._nvidia_smi.cache_clear()
    return answer


def test_a_machine(smi: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible().names == (WHOLE, FIRST, SECOND)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert visible().names == (WHOLE,)
    assert str(visible()) == "1 GPU (CUDA_VISIBLE_DEVICES is '0')"
    monkeypatch.setenv("ZEROVL_DEVICE", "cpu")
    assert visible().names == ()


def test_without_nvidia_smi_there_are_none(smi: dict[str, Any]) -> None:
    smi["error"] = FileNotFoundError()
    assert visible().names == ()
    gpu_names._nvidia_smi.cache_clear()


def test_a_driver_that_hangs_is_named(smi: dict[str, Any]) -> None:
    smi["error"] = subprocess.TimeoutExpired("nvidia-smi", 60)
    with pytest.raises(ZeroVLError, match=r"nvidia-smi -L: .*timed out.*, or set ZEROVL_DEVICE=cpu"):
        visible()
