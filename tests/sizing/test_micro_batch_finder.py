"""`micro_batch: auto`, `activation_budget`, and what they leave behind: nothing."""

import gc
import json
import re
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.rank_groups import run_group
from tests.support.tiny_project import make_project, run_folder, set_params, train
from tests.support.towers import RANKS, model
from zerovl.distributed.ranks import Ranks
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.loss import SoftmaxLoss
from zerovl.params_file import from_recipe
from zerovl.sizing import batch_layout, decisions, micro_batch_search, synthetic
from zerovl.sizing.activations import Activations, Line
from zerovl.sizing.batch_layout import Sizing, choose, kept_graphs
from zerovl.sizing.footprint import BatchLayout
from zerovl.sizing.micro_batch_search import RealTrial, candidates, find
from zerovl.sizing.synthetic import SyntheticInputs, make_mix, timed_pass
from zerovl.text_format import plural

CPU = torch.device("cpu")
GIB = 1 << 30
PER_PAIR = Activations(Line(0, 10), Line(0, 12), Line(0, 3))


def rates(table: dict[int, float | None]) -> tuple[micro_batch_search.Trial, list[int]]:
    tried: list[int] = []

    def trial(size: int) -> float | None:
        tried.append(size)
        return table[size]

    return trial, tried


def test_powers_of_two_are_preferred() -> None:
    assert candidates(96) == [1, 2, 4, 8, 16, 32]
    assert candidates(6) == [1, 2, 3, 6]
    assert candidates(100) == [1, 2, 4, 5, 10, 20, 25, 50, 100]
    assert candidates(4) == [1, 2, 4]


@pytest.mark.parametrize(
    ("room", "table", "expected", "tried", "why"),
    [
        (10**6, {8: 10.0, 16: 15.0, 32: 18.0, 64: 18.2}, 32, [8, 16, 32, 64], "64 is no faster"),
        (12 * 40, {8: 10.0, 16: 15.0, 32: 20.0}, 32, [8, 16, 32], "64 would need"),
        (10**6, {8: 10.0, 16: 15.0, 32: None}, 16, [8, 16, 32], "memory ran out at 32"),
        (10**6, {8: None, 4: None, 2: 3.0, 4.5: 0.0}, 2, [8, 4, 2, 4], "memory ran out at 4"),
        (12 * 5, {4: 3.0}, 4, [4], "8 would need"),
        (10**6, {8: 1.0, 16: 2.0, 32: 4.0, 64: 8.0}, 64, [8, 16, 32, 64], "the local batch ends"),
    ],
)
def test_the_largest_that_fits_and_pays(
    room: int, table: dict[int, float | None], expected: int, tried: list[int], why: str
) -> None:
    trial, seen = rates(table)
    found = find(64, PER_PAIR, room, trial, lambda value: value)
    assert (found.micro_batch, seen) == (expected, tried)
    assert found.why.startswith(why)


def test_where_nothing_fits_the_message_says_what_to_do() -> None:
    trial, _ = rates({1: None, 2: None, 4: None, 8: None})
    with pytest.raises(ZeroVLError, match=r"memory runs out with 1 pairs.*activation_checkpointing"):
        find(64, PER_PAIR, 10**6, trial, lambda value: value)


class Small(torch.nn.Module):
    """An image tower that runs out of memory above 16 pairs, late in its forward pass."""

    def __init__(self, tower: torch.nn.Module, error: BaseException) -> None:
        super().__init__()
        self.tower, self.error = tower, error

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.tower(pixels)
        if len(pixels) > 16:
            raise self.error
        return features


def live_tensors() -> int:
    gc.collect()
    return sum(isinstance(thing, Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no more"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_running_out_of_memory_leaves_nothing_behind(error: BaseException) -> None:
    dual = model("test_resnet")
    prepare = timed_pass(dual, make_mix("coin"), Precision("float32", CPU), CPU, 8)
    trial = RealTrial(dual, prepare, CPU, ballast=1000)
    assert trial(16)
    dual.image_tower = Small(dual.image_tower, error)
    before = {name: value.clone() for name, value in dual.state_dict().items()}
    random, tensors = torch.get_rng_state(), live_tensors()
    assert trial(32) is None
    assert live_tensors() == tensors  # `error` is still held, by the tower: its frames hold nothing
    assert trial(16)
    assert live_tensors() == tensors
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in dual.state_dict().items())
    assert all(parameter.grad is None for parameter in dual.parameters())


def test_inputs_are_made_before_the_clock_and_leave_with_their_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw them costs the host more than the towers cost a GPU, and those of a smaller trial take its room."""
    happened: list[str] = []
    made: list[weakref.ref[Tensor]] = []
    make_inputs, clock = synthetic.make_inputs, time.perf_counter

    def make(dual: DualEncoder, pairs: int, tokens: int, side: int) -> SyntheticInputs:
        happened.append(f"inputs of {pairs}")
        gc.collect()
        assert not any(earlier() is not None for earlier in made)
        inputs = make_inputs(dual, pairs, tokens, side)
        made.append(weakref.ref(inputs.images))
        return inputs

    def read() -> float:
        happened.append("clock")
        return clock()

    monkeypatch.setattr(synthetic, "make_inputs", make)
    monkeypatch.setattr(micro_batch_search.time, "perf_counter", read)
    dual = model()
    trial = RealTrial(dual, timed_pass(dual, make_mix("coin"), Precision("float32", CPU), CPU, 8), CPU, 0)
    assert trial(4)
    assert trial(8)
    assert happened == ["inputs of 4", *["clock"] * 8, "inputs of 8", *["clock"] * 8]
    assert made[1]() is None


def test_other_errors_are_not_swallowed() -> None:
    dual = model()
    dual.image_tower = Small(dual.image_tower, RuntimeError("shapes do not fit"))
    prepare = timed_pass(dual, make_mix("coin"), Precision("float32", CPU), CPU, 8)
    with pytest.raises(RuntimeError, match="shapes"):
        RealTrial(dual, prepare, CPU, 0)(32)


def chosen(folder: Path, *overrides: str, dual: DualEncoder | None = None, ranks: Ranks = RANKS) -> Sizing:
    small = ["train.batch_size=64", "model.embed_dim=8", "model.image_size=32", "model.resize_size=32"]
    settings = from_recipe({}, [*small, "train.micro_batch=auto", "model.max_tokens=8", *overrides], "x")
    return choose(settings, dual or model(), SoftmaxLoss(), Precision("float32", ranks.device), ranks, folder)


def test_what_was_found_is_kept_for_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = chosen(tmp_path)
    assert 64 % first.layout.micro_batch == 0
    assert "(auto: " in first.said
    (tmp_path / decisions.MICRO_BATCH_FILE).write_text(json.dumps({"micro_batch": 2, "why": "by hand"}))
    monkeypatch.setattr(micro_batch_search, "find", lambda *_: pytest.fail("looked for it again"))
    again = chosen(tmp_path)
    assert again.layout.micro_batch == 2
    assert "32 micro-batches of 2 (auto: found when the run began)" in again.said
    (tmp_path / decisions.MICRO_BATCH_FILE).write_text('{"micro_batch": 24}')
    with pytest.raises(ZeroVLError, match="micro-batches of 24, which do not divide 64"):
        chosen(tmp_path)
    (tmp_path / decisions.MICRO_BATCH_FILE).write_text("[]")
    with pytest.raises(ZeroVLError, match="holds no micro_batch; delete it"):
        chosen(tmp_path)


def test_graphs_that_fit_a_budget() -> None:
    low = Activations(Line(1000, 10), Line(1000, 14), Line(0, 3))  # 1000: low-precision weights, shared
    layout = BatchLayout(1600, 1, 100, 0)  # 16 micro-batches
    assert kept_graphs("none", low, layout, 10**9) == 0
    assert kept_graphs("10KiB", low, layout, 0) == 9  # (10240 - 1000) / 1000
    assert kept_graphs("1MiB", low, layout, 0) == 16
    assert kept_graphs("0.5KiB", low, layout, 0) == 1  # its memory is taken anyway
    # 400: what a backward pass needs beside; 1000: gradients of the weights that wait for its end
    assert kept_graphs("auto", low, layout, 1000 + 5000 + 400 + 1000) == 5
    assert kept_graphs("auto", low, layout, 1000 + 1000 + 400) == 1  # nothing waits: the graph's own copies are new
    assert kept_graphs("auto", low, layout, -5) == 0
    ranks = replace(layout, batch=3200, world_size=2)  # the first micro-batch has copies of its own
    assert kept_graphs("auto", low, ranks, 1000 + 16000 + 400 + 2000) == 16
    assert kept_graphs("auto", low, ranks, 1000 + 16000 + 400 + 1999) == 15
    wide = Activations(Line(1000, 10), Line(1000, 14), Line(1000, 7))  # a forward without graph is over before
    assert kept_graphs("auto", wide, layout, 1000 + 5000 + 1400) == 5
    assert kept_graphs("auto", wide, layout, 1000 + 5000 + 1399) == 4


def test_a_budget_is_resolved_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = ["train.micro_batch=4", "machine.activation_budget=auto"]
    everything = chosen(tmp_path, *fixed)
    assert everything.layout.kept_graphs == 16
    assert "16 micro-batches of 4, keeps the graphs of 16 of 16 (" in everything.said
    monkeypatch.setattr(batch_layout, "free_memory", lambda _: 0)
    nothing = chosen(tmp_path / "another", *fixed)
    assert "keeps the graphs of 0 of 16" in nothing.said
    by_hand = chosen(tmp_path, "train.micro_batch=16", "machine.kept_graphs=3", "train.valid_checks=0")
    assert by_hand.layout.kept_graphs == 3
    graphs = by_hand.memory.kept_graphs
    assert graphs > 0
    assert by_hand.memory.total - graphs < nothing.memory.total
    plain = chosen(tmp_path, "train.step=plain")
    assert (plain.layout.micro_batch, plain.said) == (64, "one pass")


def test_a_second_start_keeps_as_many_graphs_as_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other numbers would add gradients in another order: the run would not end bit for bit the same."""
    fixed = ["train.micro_batch=4", "machine.activation_budget=auto"]
    monkeypatch.setattr(batch_layout, "free_memory", lambda _: 2 << 20)
    first = chosen(tmp_path, *fixed)
    assert 0 < first.layout.kept_graphs < 16
    monkeypatch.setattr(batch_layout, "free_memory", lambda _: 8 * GIB)
    again = chosen(tmp_path, *fixed)
    assert again.layout == first.layout
    assert f"{first.layout.kept_graphs} of 16" in again.said
    assert "found when the run began)" in again.said
    assert "found when the run began" not in first.said
    monkeypatch.setattr(batch_layout, "free_memory", lambda _: int(0.9 * (2 << 20)))  # the margin is there for this
    assert chosen(tmp_path, *fixed).layout == first.layout

    other = [*fixed, "machine.activation_budget=1GiB"]
    assert chosen(tmp_path, *other).layout.kept_graphs == 16
    assert chosen(tmp_path, *fixed).layout == first.layout  # it has its own again
    assert chosen(tmp_path, *fixed, "train.micro_batch=8").layout.kept_graphs < 8


def test_kept_graphs_that_fit_no_longer_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = ["train.micro_batch=4", "machine.activation_budget=auto"]
    assert chosen(tmp_path, *fixed).layout.kept_graphs == 16
    monkeypatch.setattr(batch_layout, "free_memory", lambda _: 2 << 20)
    fewer = chosen(tmp_path / "another", *fixed).layout.kept_graphs
    with pytest.raises(ZeroVLError, match=r"kept_graphs.json: this run keeps 16 graphs of 4 pairs") as error:
        chosen(tmp_path, *fixed)
    (fix,) = re.findall(r"machine.kept_graphs to (\d+)", str(error.value))
    assert fewer <= int(fix) < 16
    followed = chosen(tmp_path, "train.micro_batch=4", "machine.activation_budget=none", f"machine.kept_graphs={fix}")
    assert followed.layout.kept_graphs == int(fix)
    sized = [*fixed, "machine.activation_budget=1GiB"]
    assert chosen(tmp_path, *sized).layout == chosen(tmp_path, *sized).layout  # a size is taken at its word

    path = tmp_path / decisions.KEPT_GRAPHS_FILE
    path.write_text(path.read_text().replace('"kept_graphs": 16', '"kept_graphs": 17'))
    with pytest.raises(ZeroVLError, match="kept_graphs 17 is not a number from 0 to 16; delete"):
        chosen(tmp_path, *fixed)
    path.write_text("[]")
    with pytest.raises(ZeroVLError, match="holds no list of what was found; delete it"):
        chosen(tmp_path, *fixed)


def on_one_rank(ranks: Ranks, folder: str, rooms: tuple[int, int]) -> tuple[int, int, int, int]:
    batch_layout.free_memory = lambda _device: rooms[ranks.rank]
    own = Path(folder) / str(ranks.rank)  # nodes that share no disk
    own.mkdir()
    found = chosen(own, "machine.activation_budget=auto", ranks=ranks).layout
    batch_layout.free_memory = lambda _device: 8 * GIB  # at another start there is more
    kept = chosen(own, "machine.activation_budget=auto", ranks=ranks).layout.kept_graphs
    (own / decisions.MICRO_BATCH_FILE).write_text(json.dumps({"micro_batch": 2 << ranks.rank}))
    again = chosen(own, ranks=ranks).layout
    return found.micro_batch, found.kept_graphs, kept, again.micro_batch  # type: ignore[return-value]


def test_ranks_take_what_the_poorest_can_hold(tmp_path: Path) -> None:
    results = run_group(2, on_one_rank, str(tmp_path), (8 * GIB, 1 << 20))
    assert results[0] == results[1]
    micro, kept, kept_again, again = results[0]
    assert micro <= 8
    assert kept < 32 // micro
    assert kept_again == kept  # what rank 0 has on disk
    assert again == 2  # what rank 0 has on disk


def test_a_run_finds_it_and_says_so(tmp_path: Path) -> None:
    workspace = make_project(tmp_path)
    set_params(
        workspace, f"data.raw={tmp_path / 'raw'}", "train.micro_batch=auto", "machine.activation_budget=1KiB",
        "train.epochs=1",
    )  # fmt: skip
    out = train(workspace)
    folder = run_folder(workspace)
    size = json.loads((folder / decisions.MICRO_BATCH_FILE).read_text())["micro_batch"]
    assert f"{plural(16 // size, 'micro-batch', 'micro-batches')} of {size} (auto: " in out
    assert f"keeps the graphs of 1 of {16 // size} (" in out  # its memory is taken anyway
    assert "a rank at the highest: weights" in out
    metrics = json.loads((workspace.training_report / "metrics.json").read_text())
    assert metrics["peak_memory_bytes"] > metrics["memory_before_bytes"] > 10**8
