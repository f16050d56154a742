"""Which of several failed ranks is the cause, and whether another attempt is worth it."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from tests.support.tiny_project import recipe
from zerovl.distributed import exits
from zerovl.distributed.activity import Activity
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.errors import ZeroVLError
from zerovl.params import MachineParams
from zerovl.training import launch, one_rank
from zerovl.training.launch import Cause, find_cause
from zerovl.workspace import Workspace


@pytest.mark.parametrize(
    ("statuses", "words", "rank", "text"),
    [
        ([4, -9], {0: "rank 0 lost another rank"}, 1, "rank 1 (pid 101) died by SIGKILL"),
        ([-11, 4, -15], {}, 0, "rank 0 (pid 100) died by SIGSEGV"),
        ([5, -9], {0: "rank 1 does not answer"}, 0, "rank 1 does not answer"),  # killed as it would not end
        ([2, 2], {1: "shard 3 is damaged"}, 1, "shard 3 is damaged"),  # the one that said it
        ([-15, 1], {1: "rank 1: ValueError: x"}, 1, "rank 1: ValueError: x"),
        ([4, 3], {}, 1, "ended with status 3"),
        ([-15, 4], {1: "rank 1 lost another rank"}, 1, "rank 1 lost another rank"),  # the agent told rank 0 to end
        ([-6, -9, -6], {}, 1, "rank 1 (pid 101) died by SIGKILL"),  # NCCL aborts the ranks that are left
        ([-6, 1], {1: "rank 1: ValueError: x"}, 1, "rank 1: ValueError: x"),
        ([4, -6, -15], {0: "rank 0 lost another rank"}, 1, "rank 1 (pid 101) died by SIGABRT"),
    ],
)
def test_cause(statuses: list[int], words: dict[int, str], rank: int, text: str, tmp_path: Path) -> None:
    failures = []
    for number, status in enumerate(statuses):
        file = tmp_path / f"{number}.json"
        if number in words:
            file.write_text(json.dumps({"message": words[number], "timestamp": 1}))
        failures.append((number, ProcessFailure(number, 100 + number, status, str(file))))
    cause = find_cause(failures)
    assert (cause.rank, cause.status) == (rank, statuses[rank])
    assert text in cause.text


def test_towers_that_cannot_work_are_told_before_a_rank_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["machine.ranks=2", "train.micro_batch=8", "model.image_tower.options={img_size: 64}"]
    monkeypatch.setattr(launch, "_run_group", lambda *_: pytest.fail("ranks were started"))
    with pytest.raises(ZeroVLError, match="image_size 32 does not fit the image tower vit_tiny_patch16_224"):
        launch.launch(recipe(*asked), "params.yaml")


BROKEN = Cause(1, exits.CRASHED, "rank 1: ValueError: x (step 12, computing)")


@pytest.mark.parametrize(
    ("second", "attempts", "text"),
    [
        (BROKEN, 2, "it came in the same step before the restart"),
        (Cause(0, exits.CRASHED, "rank 0: ValueError: x (step 12, computing)"), 2, "it came in the same step"),
        (Cause(1, exits.CRASHED, "rank 1: ValueError: x (step 14, computing)"), 4, "no restart is left"),
        (Cause(1, -9, "rank 1 (pid 101) died by SIGKILL", 12), 4, "no restart is left"),
        (Cause(1, -9, "rank 1 (pid 101) died by SIGKILL", 14), 3, "in step 14, as before the restart"),
    ],
)
def test_an_exception_that_comes_again_in_the_same_step_is_not_tried_again(
    second: Cause,
    attempts: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in (one_rank.LAUNCHER, one_rank.PID_FOLDER, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "TORCH_CPP_LOG_LEVEL"):
        monkeypatch.setenv(name, "")  # what the launcher sets is taken back after the test
    for name in ("_catch_signals", "_silence_torchrun"):
        monkeypatch.setattr(launch, name, lambda: None)
    causes = [BROKEN, second, *(Cause(rank, -9, f"rank {rank} (pid 9) died", 14 + rank) for rank in (0, 1))]
    tried = iter(causes)
    monkeypatch.setattr(launch, "_attempt", lambda *_: next(tried))
    assert launch._run_group(2, ["params.yaml"], MachineParams(restarts=3)) == exits.CRASHED
    assert len(list(tried)) == len(causes) - attempts
    assert text in capsys.readouterr().err.splitlines()[-1]


def test_addresses_and_ids_of_processes_are_others_each_time() -> None:
    first, second, later = (
        Cause(rank, exits.CRASHED, f"rank {rank}: OSError: <file at {address}> of pid {pid} (step {step}, computing)")
        for rank, address, pid, step in ((0, "0x7f1a", 11, 3), (1, "0x7f2b", 12, 3), (0, "0x7f1a", 11, 4))
    )
    assert second.repeats(first)
    assert not later.repeats(first)


def killed(step: int | None, status: int = -9, rank: int = 0) -> Cause:
    return Cause(rank, status, f"rank {rank} (pid {100 + rank}) died", step)


def test_a_signal_in_the_same_step_on_whichever_rank_is_a_repeat() -> None:
    assert killed(3).repeats(killed(3, rank=1))
    assert killed(None).repeats(killed(None))  # before any step: memory that a start needs will be too little again
    assert not killed(3).repeats(killed(4))
    assert not killed(None).repeats(killed(3))
    assert not killed(3).repeats(killed(3, status=-11))
    assert not killed(3).repeats(None)


def test_a_rank_that_is_killed_leaves_the_step_that_it_was_in(tmp_path: Path) -> None:
    def rank(step: int) -> None:
        activity = Activity()
        activity.keep_step_in(one_rank.step_file(str(tmp_path), 1))
        activity.mark("loading data", step)
        activity.mark("computing")
        os.kill(os.getpid(), signal.SIGKILL)

    for step in (1200, 7):  # the second attempt writes over the first
        child = multiprocessing.get_context("fork").Process(target=rank, args=(step,))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert launch._step_of(1, str(tmp_path)) == step
    assert launch._step_of(0, str(tmp_path)) is None


def test_a_rank_that_crashes_says_in_which_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_params: object, _workspace: object, ranks: Ranks, _stop: object) -> int:
        ranks.activity.mark("computing", 12)
        raise ValueError("x")

    monkeypatch.setattr(one_rank, "train", broken)
    monkeypatch.setattr(StopRequest, "install", lambda *_: None)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(ValueError, match="x") as caught:
        one_rank.train_rank(recipe(), Workspace())
    assert one_rank._crashed("1", caught.value) == exits.CRASHED
    assert exits.read_error_file(str(tmp_path / "error.json")) == BROKEN.text
