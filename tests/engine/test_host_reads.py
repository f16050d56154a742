"""The host gives a step to the device without reading from it, and tells what it found later, but never too late."""

import json
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.towers import CPU, RANKS, MicroInputs, batch, decoupled_step, model, plain_step
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.late_values import Moment
from zerovl.distributed.ranks import Ranks
from zerovl.engine import checkpoints as checkpoints_module
from zerovl.engine import trainer as trainer_module
from zerovl.engine.agreement import Agreement, Wishes
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.metrics_log import MetricsLog
from zerovl.engine.optimiser import Schedule
from zerovl.engine.precision import Precision
from zerovl.engine.state import TrainingState
from zerovl.engine.trainer import Cadence, PeriodicEvaluation, StopRequest, Trainer
from zerovl.errors import ZeroVLError
from zerovl.files import read_json_lines
from zerovl.objective.mixup import Mix, Mixup

META = torch.device("meta")
SILENT: Any = SimpleNamespace(step=lambda *_: 1.0, say=lambda _: None)


class Ahead(Ranks):
    """A CPU whose host reads as late as that of a GPU."""

    lag = 1  # type: ignore[assignment]


@dataclass
class StepBatch:
    step: int
    source: str = "drawn"
    micro_batches: list[MicroInputs] = field(default_factory=lambda: batch(2))


def trainer_of(step: Any, dual: Any, ranks: Ranks, precision: Precision, **options: Any) -> Trainer:
    kind = torch.optim.SGD if ranks.device == META else partial(torch.optim.AdamW, fused=True)
    optimiser: Any = kind(dual.parameters())
    defaults = {
        "state": TrainingState(dual, optimiser, precision.scaler),
        "step": step,
        "schedule": Schedule(1e-3, 6, 0, 0.1),
        "mixup": Mixup("coin", 0.2, 0),
        "precision": precision,
        "ranks": ranks,
        "checkpoints": None,
        "cadence": Cadence(100, 60.0),
        "clip_norm": 0.5,
        "evaluation": None,
        "stop": StopRequest(),
        "log": None,
    }
    return Trainer(**{**defaults, **options})


@pytest.mark.parametrize("kind", [plain_step, decoupled_step])
def test_a_step_on_a_device_reads_nothing(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device whose tensors have no values, so that whoever reads one fails."""
    monkeypatch.setattr(trainer_module, "read_later", lambda numbers: numbers)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # that device has none
    ranks, precision = Ranks(0, 1, META, OneRank()), Precision("float32", META)
    dual = model(logit_bias=-1.0).to(META).train()
    trainer = trainer_of(kind(dual, ranks, precision), dual, ranks, precision)
    for step in range(4):  # both sides of the coin
        launched = trainer._update(StepBatch(step), 1e-3, Moment(META))
    assert launched.names == ("loss", "gradient_norm", "temperature", "logit_bias")
    assert launched.numbers.is_meta  # type: ignore[attr-defined]
    monkeypatch.setattr(Tensor, "is_cpu", True)  # as if it were the host's memory, where reading costs nothing
    with pytest.raises(RuntimeError, match="meta tensors"):
        trainer._update(StepBatch(5), 1e-3, Moment(META))


class Reads(TorchDispatchMode):
    """Counts the numbers that the host reads from tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_clipping_and_the_loss_scale_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "read_later", lambda numbers: numbers)
    dual, precision = model(), Precision("fp16", CPU)

    def step(*_: Any) -> Tensor:
        loss: Tensor = sum(parameter.square().sum() for parameter in dual.parameters())  # type: ignore[assignment]
        precision.backward(loss)
        return loss.detach()

    trainer = trainer_of(step, dual, RANKS, precision)
    trainer._update(StepBatch(0), 1e-3, Moment(CPU))
    with Reads() as reads:
        launched = trainer._update(StepBatch(1), 1e-3, Moment(CPU))
        assert reads.count == 0
        assert float(launched.numbers[1]) > 0.5  # type: ignore[index]
        assert reads.count == 1
    assert launched.names == ("loss", "gradient_norm", "loss_scale", "temperature")


def train(folder: Path, ranks: Ranks, losses: dict[int, float] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Six steps with a checkpoint after every second, `losses` in the place of some steps' own; the rows of the log."""
    dual, precision = model().train(), Precision("float32", CPU)
    own = decoupled_step(dual, ranks, precision)

    def step(inputs: Any, mix: Mix, number: int) -> Tensor:
        loss = own(inputs, mix, number)
        return torch.tensor(losses[number]) if losses and number in losses else loss

    log = MetricsLog(folder, 0)
    checkpoints = Checkpoints(folder / "checkpoints", 9, 0, ranks)
    trainer = trainer_of(
        step, dual, ranks, precision, cadence=Cadence(2, 60.0), checkpoints=checkpoints, log=log, **options
    )
    try:
        trainer.train((StepBatch(number) for number in range(6)), 0, SILENT)
        assert checkpoints.steps() == [2, 4, 6]
    finally:
        checkpoints.finish(lambda _: None)
        log.close()
    return [
        {key: value for key, value in row.items() if key not in ("save_seconds", "data_seconds")}
        for row in read_json_lines(log.path)
    ]


@pytest.mark.parametrize("lag", [0, 1])
def test_a_checkpoint_in_writing_is_asked_about_without_waiting_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lag: int
) -> None:
    """What the ranks say after a step is read as late as the step's loss."""
    asked, written = [], threading.Event()
    write = checkpoints_module.write_shard

    def slow(*arguments: Any) -> None:
        assert written.wait(60)
        write(*arguments)

    @dataclass(frozen=True)
    class Heard(Ahead if lag else Ranks):  # type: ignore[misc]
        def start_any(self, *flags: bool) -> Any:
            answer, number = super().start_any(*flags), len(asked)
            asked.append("asked")
            return lambda: (asked.__setitem__(number, "read"), answer())[1]

    monkeypatch.setattr(checkpoints_module, "write_shard", slow)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 9, 0, Heard(0, 1, CPU, OneRank()))
    dual = model()
    checkpoints.begin(
        TrainingState(dual, torch.optim.AdamW(dual.parameters()), Precision("float32", CPU).scaler), 1, print
    )
    for step in range(1, 4):
        checkpoints.poll(print)
        assert asked == ["read"] * (step - lag) + ["asked"] * lag
    written.set()
    while not checkpoints.steps():
        checkpoints.poll(print)
        time.sleep(0.01)
    assert checkpoints.finish(print)
    count = len(asked)
    checkpoints.poll(print)
    assert len(asked) == count  # nothing is in writing


class Tick:
    """A clock that counts how often it was looked at."""

    count = 0

    def __init__(self, _device: torch.device) -> None:
        Tick.count += 1
        self.at = Tick.count

    def seconds_until(self, later: "Tick") -> int:
        return later.at - self.at


@pytest.mark.parametrize(
    ("times", "steps", "expected"),
    [(2, 6, [3, 6]), (5, 221, [45, 89, 133, 177, 221]), (10, 225, [23, 45, 68, 90, 113, 135, 158, 180, 203, 225]),
     (8, 3, [1, 2, 3]), (1, 7, [7])],
)  # fmt: skip
def test_scores_are_evenly_spread_and_the_last_is_of_the_end(times: int, steps: int, expected: list[int]) -> None:
    evaluation = PeriodicEvaluation(times, dict)
    assert [done for done in range(1, steps + 1) if evaluation.due(done, steps)] == expected


@pytest.mark.parametrize("ranks", [RANKS, Ahead(0, 1, CPU, OneRank())], ids=["at once", "late"])
def test_each_step_has_its_own_time(ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are told together took as long as those that are not, and saves and scores are none of it."""
    monkeypatch.setattr(trainer_module, "Moment", Tick)
    seconds: list[float] = []
    progress = SimpleNamespace(step=lambda _loss, _lr, took, _waited: seconds.append(took) or 1.0, say=lambda _: None)
    monkeypatch.setitem(globals(), "SILENT", progress)
    train(tmp_path, ranks, evaluation=PeriodicEvaluation(2, dict))
    assert seconds == [2] * 6  # from the end of one to when the batch of the next is there, and on to its end


def test_read_late_the_log_is_the_same(tmp_path: Path) -> None:
    found = []
    for ranks in (RANKS, Ahead(0, 1, CPU, OneRank())):
        scores = iter(range(9))
        evaluation = PeriodicEvaluation(2, lambda scores=scores: {"valid_rsum": float(next(scores))})  # type: ignore[misc]
        found.append(train(tmp_path / str(ranks.lag), ranks, evaluation=evaluation))
    assert found[0] == found[1]
    assert [row["step"] for row in found[0]] == list(range(6))
    assert [row.get("valid_rsum") for row in found[0]] == [None, None, 0.0, None, None, 1.0]
    assert list(found[0][0]) == ["step", "loss", "lr", "temperature", "source", "pairs_per_second", "gradient_norm"]
    json.dumps(found)


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize(("step", "saved"), [(2, [2]), (3, [2]), (4, [2, 4])])
def test_no_checkpoint_of_a_loss_that_is_not_finite(tmp_path: Path, lag: int, step: int, saved: list[int]) -> None:
    ranks = Ahead(0, 1, CPU, OneRank()) if lag else RANKS
    with pytest.raises(ZeroVLError, match=rf"loss is nan in step {step} \(source drawn, .*a-1"):
        train(tmp_path, ranks, {step: float("nan")})
    rows = read_json_lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(step))
    assert Checkpoints(tmp_path / "checkpoints", 9, 0, ranks).steps() == saved


def test_wishes_of_ranks_that_run_ahead_come_a_step_late_and_once() -> None:
    ranks = Ahead(0, 2, CPU, OneRank())
    agreement = Agreement(ranks)
    assert agreement.exchange(Wishes(overdue=True)) == Wishes()
    assert agreement.exchange(Wishes(overdue=True)) == Wishes(overdue=True)
    agreement.saved()
    assert agreement.exchange(Wishes(stop=True)) == Wishes(), "that save was also for the second wish"
    assert agreement.exchange(Wishes()) == Wishes(stop=True)
    assert Agreement(Ahead(0, 1, CPU, OneRank())).exchange(Wishes(save=True)) == Wishes(save=True)
