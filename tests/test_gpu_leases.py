"""Who gets which GPU, and when; with real processes and imitated devices."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zerovl import gpu_leases, lease_files
from zerovl.errors import ZeroVLError
from zerovl.gpu_leases import look

DEVICES = ("GPU-a", "GPU-b", "GPU-c")
# Takes GPUs as `zerovl train` does, says what it sees, and keeps them until its input ends.
RUN = """
import os, sys
from zerovl import gpu_leases, log, own_gpus
log.setup()
gpu_leases._POLL = 0.02
own_gpus.take(own_gpus.count(int(sys.argv[1])), "train")
print("sees", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


class Run:
    """A process that wants GPUs."""

    def __init__(self, name: str, wants: int, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(wants)],
            env={**os.environ, "ZEROVL_RUN": name, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def says(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout
        return self.process.stdout.readline().rstrip()

    def sees(self) -> list[str]:
        """Its devices, once it has them."""
        while not (line := self.says()).startswith("sees "):
            assert re.match(r"\d\d:\d\d:\d\d (waiting for|has) ", line), line
        return line.removeprefix("sees ").split(",")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEROVL_LEASE", str(tmp_path / "leases"))
    monkeypatch.setenv("ZEROVL_GPUS", ",".join(DEVICES))
    monkeypatch.setenv("ZEROVL_DEVICE", "auto")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu_leases, "_POLL", 0.02)
    return tmp_path / "leases"


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """Starts runs, which are killed at the end."""
    runs: list[Run] = []

    def begin(name: str, wants: int, **environment: str) -> Run:
        runs.append(Run(name, wants, **environment))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


def holders() -> dict[str, str | None]:
    return {device: entry and entry.holder for device, entry in look(DEVICES).holders.items()}


def test_runs_side_by_side_and_a_killed_one_frees_at_once(start: Callable[..., Run], place: Path) -> None:
    first, second = start("run first", 1), start("run second", 1)
    seen = [first.sees(), second.sees()]
    assert sorted(seen) == [["GPU-a"], ["GPU-b"]]
    third = start("run third", 2)
    words = third.says()
    assert " waiting for 2 GPUs: run " in words
    assert "run first has GPU-" in words
    assert "run second has GPU-" in words
    first.kill()
    assert set(third.sees()) == {*seen[0], "GPU-c"}
    assert holders() == {seen[1][0]: "run second", seen[0][0]: "run third", "GPU-c": "run third"}
    assert [path.stat().st_mode & 0o777 for path in place.iterdir()] == [0o666] * 3  # no ticket is left


def test_who_came_first_is_served_first(start: Callable[..., Run]) -> None:
    one = start("run one", 1)
    assert one.sees() == ["GPU-a"]
    all_of_them = start("run all", 0)
    assert " waiting for 3 GPUs: run one has GPU-a since 2" in all_of_them.says()
    late = start("run late", 1)
    assert "run all waits for 3 GPUs since 2" in late.says()  # although two are free
    assert holders() == {"GPU-a": "run one", "GPU-b": None, "GPU-c": None}
    assert [entry.holder for entry in look(DEVICES).waiting] == ["run all", "run late"]
    one.kill()
    assert all_of_them.sees() == list(DEVICES)
    all_of_them.kill()
    assert late.sees() == ["GPU-a"]


def test_a_run_of_eight_gpus_beside_runs_of_one(start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for all of a node, and nobody who comes later gets one of them before it."""
    devices = tuple(f"GPU-{number}" for number in range(8))
    monkeypatch.setenv("ZEROVL_GPUS", ",".join(devices))
    small = [start(f"run {number}", 1) for number in range(2)]
    assert sorted(run.sees() for run in small) == [["GPU-0"], ["GPU-1"]]
    large = start("run eight", 8)
    assert "waiting for 8 GPUs: run " in large.says()
    late = start("run late", 1)
    assert "run eight waits for 8 GPUs since 2" in late.says()
    for run in small:
        run.kill()
    assert large.sees() == list(devices)
    assert {entry and entry.holder for entry in look(devices).holders.values()} == {"run eight"}
    large.kill()
    assert late.sees() == ["GPU-0"]


def test_who_was_killed_while_it_waited_holds_nobody_up(start: Callable[..., Run], place: Path) -> None:
    start("run one", 1).sees()
    waiting = start("run all", 3)
    waiting.says()
    waiting.kill()
    assert list(place.glob("*.ticket"))
    assert start("run next", 1).sees() == ["GPU-b"]
    assert not list(place.glob("*.ticket"))


def test_who_can_use_other_devices_alone_goes_on(start: Callable[..., Run]) -> None:
    """`CUDA_VISIBLE_DEVICES` of outside stays the limit, by number or by name."""
    first = start("run first", 0, CUDA_VISIBLE_DEVICES="0,1")
    assert first.sees() == ["GPU-a", "GPU-b"]
    waiting = start("run waiting", 1, CUDA_VISIBLE_DEVICES="GPU-b")
    assert "waiting for a GPU: run first has GPU-b since 2" in waiting.says()
    assert start("run other", 1, CUDA_VISIBLE_DEVICES="2").sees() == ["GPU-c"]
    first.kill()
    assert waiting.sees() == ["GPU-b"]


def test_the_wait_has_an_end_and_names_who_has_them() -> None:
    held = gpu_leases.take(2, DEVICES, "run a", print)
    said: list[str] = []
    with pytest.raises(ZeroVLError, match=r"2 GPUs did not come within 0 s: run a has GPU-a, GPU-b since 2"):
        gpu_leases.take(2, DEVICES, "run b", said.append, seconds=0.0)
    assert said == []
    assert look(DEVICES).waiting == []
    held.release()
    gpu_leases.take(2, DEVICES, "run b", said.append).release()
    assert said == []


def test_who_waits_long_hears_of_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    held = gpu_leases.take(3, DEVICES, "run a", print)
    monkeypatch.setattr(gpu_leases, "_REMIND", 0.0)
    said: list[str] = []

    def hear(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            held.release()

    gpu_leases.take(1, DEVICES, "run b", hear).release()
    assert said[0] == said[1]
    assert said[-1] == "has GPU-a after 0 s: going on"


def test_a_lock_of_a_version_before_is_left_where_it_is(place: Path) -> None:
    place.write_text("run old, since 2026-01-01 00:00:00 UTC")
    assert lease_files.folder() == place.with_name("leases.d")


def test_a_folder_that_cannot_be_made_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write_text("a file")
    monkeypatch.setenv("ZEROVL_LEASE", str(place / "below"))
    with pytest.raises(ZeroVLError, match=r"leases/below: Not a directory; name a folder .* with ZEROVL_LEASE"):
        gpu_leases.take(1, DEVICES, "run a", print)


def test_a_folder_that_cannot_be_written_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, who may write anywhere
    with pytest.raises(ZeroVLError, match=r"leases: no right to write there.* `chmod 777 .*leases`, or name another"):
        gpu_leases.take(1, DEVICES, "run a", print)


def test_the_folder_is_the_same_whatever_each_has_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROVL_LEASE")
    monkeypatch.setenv("TMPDIR", "/of/a/job")
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert lease_files.folder() == Path("/tmp/zerovl-gpus")


def test_looking_changes_nothing(place: Path) -> None:
    place.mkdir()
    (place / "7.ticket").touch()  # of a process that was killed
    assert look(DEVICES).waiting == []
    assert [path.name for path in place.iterdir()] == ["7.ticket"]


def test_looking_makes_nothing(place: Path) -> None:
    assert look(DEVICES).free == 3
    assert str(look(DEVICES)) == "nobody has any"
    assert not place.exists()
