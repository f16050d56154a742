"""What all benchmarks share: turns, ratios, what failed and what is taken up again."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.common import Results, find_all, interleaved, measured, summary, surviving


def out_of_memory() -> dict[str, Any]:
    raise torch.OutOfMemoryError("CUDA out of memory")


def broken() -> dict[str, Any]:
    raise RuntimeError("shapes do not match\nat line 3")


def test_too_little_memory_is_a_result_and_other_errors_are_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert measured(out_of_memory) == {"not_measured": "out of memory"}
    assert not capsys.readouterr().err
    failed = {"not_measured": "RuntimeError: shapes do not match", "failed": True}
    assert measured(broken) == failed
    assert "at line 3" in capsys.readouterr().err  # with its traceback
    found, missing = find_all({"one": lambda: 1, "two": broken})
    assert (found, missing) == ({"one": 1}, {"two": failed})
    for signal in (gpu.MinutesAreUp, KeyboardInterrupt):
        with pytest.raises(signal):
            measured(lambda signal=signal: throw(signal()))  # type: ignore[misc]


def throw(error: BaseException) -> dict[str, Any]:
    raise error


def test_variants_that_fail_leave_the_others_to_be_timed() -> None:
    calls: list[str] = []

    def late() -> None:
        calls.append("late")
        if len(calls) > 3:
            broken()

    clock = iter(range(1000))
    variants = {"good": lambda: calls.append("good"), "late": late, "small": out_of_memory}
    seconds, failed = surviving(variants, rounds=3, clock=lambda: float(next(clock)))
    assert seconds == {"good": [1.0, 1.0, 1.0]}
    assert {name: record["not_measured"] for name, record in failed.items()} == {
        "late": "RuntimeError: shapes do not match",
        "small": "out of memory",
    }
    assert surviving({"small": out_of_memory}, 1, lambda: 0.0)[0] == {}


def test_variants_take_turns_and_ratios_are_round_by_round() -> None:
    order: list[str] = []
    clock = iter(range(100))
    variants = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = interleaved(variants, rounds=3, clock=lambda: float(next(clock)), warm_ups=1)
    assert order[:3] == list("abc")  # the warm-up
    turns = ["".join(order[start : start + 3]) for start in (3, 6, 9)]
    assert all(sorted(turn) == list("abc") for turn in turns)
    assert len(set(turns)) > 1
    assert seconds == {name: [1.0, 1.0, 1.0] for name in "abc"}
    slowing = summary([2.0, 4.0, 8.0], baseline=[1.0, 2.0, 4.0])
    assert (slowing["ratio"], slowing["seconds"], slowing["slowest"]) == (2.0, 4.0, 8.0)


@pytest.mark.parametrize("process", [gc.freeze, gc.unfreeze])
def test_what_the_process_has_frozen_stays_so_and_nothing_else(process: Callable[[], None]) -> None:
    """pytest's process has frozen what it imported (tests/conftest.py): without that each collection takes a second."""
    before = gc.get_freeze_count()
    process()
    frozen, during = gc.get_freeze_count(), list[int]()
    try:
        interleaved({"one": lambda: during.append(gc.get_freeze_count())}, rounds=1, clock=lambda: 0.0, warm_ups=0)
        assert during[0] > 0
        # Of what is frozen some may end meanwhile, by its last reference: of a million objects, two were seen to.
        assert 0 <= frozen - gc.get_freeze_count() < 1000
    finally:
        (gc.freeze if before else gc.unfreeze)()


def test_gpu_results_are_resumed_only_for_the_same_settings(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    Results(file, {"batches": (8, 16)}).add("plain", "one", {"pairs_per_second": 3.0})
    same, other = Results(file, {"batches": (8, 16)}), Results(file, {"batches": (8,)})
    same.resume()
    other.resume()
    assert same.has("plain", "one")
    assert not other.has("plain", "one")
    assert same.status() == 0


def test_what_failed_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Results(tmp_path / "gpu.json", {})
    first.add("plain", "one", {"pairs_per_second": 3.0})
    first.add("plain", "two", measured(broken))
    first.add("plain", "three", measured(out_of_memory))
    first.add("parts", "compiled", measured(broken))
    assert first.status() == 1
    assert "failed: plain: two: RuntimeError: shapes do not match\nfailed: parts: compiled" in capsys.readouterr().err
    again = Results(tmp_path / "gpu.json", {})
    again.resume()
    assert [again.has("plain", name) for name in ("one", "two", "three")] == [True, False, True]
    assert not again.has("parts", "compiled")
    assert again.status() == 0
