"""The arithmetic of `zerovl plan`: memory, work and speed that can be counted by hand."""

import pytest

from tests.support.tiny_project import RECIPE
from tests.support.towers import model
from zerovl import cores
from zerovl.errors import ZeroVLError
from zerovl.objective.loss import SoftmaxLoss
from zerovl.params import Params
from zerovl.params_file import from_recipe
from zerovl.planning import gpus, plan
from zerovl.planning.calibrate import Calibration
from zerovl.planning.plan import Model
from zerovl.planning.target import Target
from zerovl.planning.timed_steps import costs
from zerovl.sizing import shape_only_model
from zerovl.sizing.activations import Activations, Line
from zerovl.sizing.footprint import BatchLayout, ModelSize, Workload, footprint
from zerovl.sizing.shape_only_model import Parameters, TowerFlops
from zerovl.text_format import parse_size
from zerovl.text_format import size as show_size

GIB = 1 << 30


def settings(*overrides: str) -> Params:
    return from_recipe(RECIPE, ["train.batch_size=1024", "train.micro_batch=64", *overrides], "tiny")


def test_memory_by_part() -> None:
    activations = Activations(Line(100, 10), Line(100, 14), Line(0, 5))
    size = ModelSize(total=1000, learned=800)

    def parts(world: int, micro: int, kept: int, *overrides: str) -> dict[str, int]:
        found = settings("train.valid_checks=0", *overrides)
        return footprint(
            Workload.of(found, SoftmaxLoss()), size, activations, BatchLayout(1024, world, micro, kept), "cpu"
        ).as_dict()

    bare, some, whole = parts(2, 64, 0), parts(2, 64, 3), parts(2, 64, 8)
    assert (bare["weights"], bare["gradients"], bare["moments"]) == (4000, 3200, 6400)
    assert bare["activations"] == some["activations"] == 100 + 64 * 14
    assert (bare["kept_graphs"], some["kept_graphs"], whole["kept_graphs"]) == (0, 100 + 1920, 100 + 5120)
    assert whole["activations"] == 0
    assert bare["embeddings"] == 4 * 512 * 16 * 4
    assert bare["inputs"] == 512 * (3 * 32 * 32 + 16 * 25)
    lasting = sum(bare[name] for name in ("weights", "gradients", "moments", "embeddings", "inputs"))
    assert bare["total"] == lasting + max(bare["activations"], bare["loss"])
    assert some["total"] == lasting + some["kept_graphs"] + some["loss"]  # the loss comes while the graphs wait
    assert parts(2, 64, 0, "machine.shard_model=true")["moments"] == 3200
    within = Workload.of(settings("machine.shard_model=true", "machine.shard_within=node"), SoftmaxLoss(), 2)
    on_nodes = footprint(within, size, activations, BatchLayout(1024, 8, 64, 0), "cpu")
    assert (on_nodes.weights, on_nodes.moments) == (2000, 3200)  # two ranks split a copy, whatever their number


def test_suggestions_fit_and_use_what_is_free() -> None:
    activations = Activations(Line(0, 1e6), Line(0, 1.2e6), Line(0, 3e5))
    towers = Model(Parameters(10**6, 10**6, 0, 2 * 10**6, 0), TowerFlops(1, 1), activations, [])
    auto = settings("train.micro_batch=auto", "machine.activation_budget=auto", "train.valid_checks=0")
    previous = 0
    for mib in (120, 400, 800, 4000):
        target = Target("cuda", "x", 2, mib << 20, None)
        found = plan.suggest(auto, target, towers)
        assert found is not None
        assert found.memory.total <= 0.92 * target.memory
        assert found.micro_batch * max(1, found.kept_graphs) >= previous
        previous = found.micro_batch * max(1, found.kept_graphs)
        split = plan.planned_layout(auto, target, towers, found)
        assert (split.micro_batch, split.kept_graphs) == (found.micro_batch, found.kept_graphs)
    assert (found.micro_batch, found.kept_graphs) == (256, 2)  # all of the 512 local pairs
    assert plan.suggest(auto, Target("cuda", "x", 2, 20 << 20, None), towers) is None


def test_work_of_frozen_and_checkpointed_towers_and_kept_graphs() -> None:
    flops = TowerFlops(image=10.0, text=1.0)
    split = BatchLayout(1024, 1, 64, 4)
    assert plan.work(settings(), flops, split).planned == pytest.approx(33 + 11 * 12 / 16)
    assert plan.work(settings("train.step=plain"), flops, split).planned == 33
    frozen = plan.work(settings("train.freeze=[image]"), flops, BatchLayout(1024, 1, 64, 0))
    assert (frozen.plain, frozen.planned) == (13, 14)
    assert plan.work(settings("machine.activation_checkpointing=true"), flops, split).plain == 44


def test_flops_of_a_layer_counted_by_hand() -> None:
    towers = shape_only_model.imagine(
        model().architecture
    )  # one block of width 16 over 4 patches of 16 x 16 and a class token
    found = shape_only_model.forward_flops(towers, tokens=8)
    tokens, width = 5, 16
    image = 2 * 4 * 768 * width  # patches
    image += 2 * tokens * width * width * (3 + 1 + 4 + 4) + 2 * 2 * tokens * tokens * width  # block
    image += 2 * width * 8  # projection
    assert found.image == pytest.approx(image, rel=0.01)


def test_measured_speed_waits_for_the_slower_of_steps_and_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "core_count", lambda: 4)
    split, target = BatchLayout(1024, 1, 64, 4), Target("cpu", "x", 1, GIB, None)

    def rate(loader: float | None, workers: int, threads: int = 1) -> float:
        calibration = Calibration("x", threads, 20, 0.4, 0.3, 0.4, 0, loader)
        params = settings(f"machine.loader_workers={workers}")
        return plan.measured_speed(target, calibration, params, split, None).pairs_per_second

    steps = 1024 / (0.4 + 12 * 0.4 + 4 * 0.3)
    assert rate(None, 1) == pytest.approx(steps)
    assert rate(1e6, 1) == pytest.approx(steps)
    assert rate(50.0, 1) == pytest.approx(50)
    assert rate(steps, 0) == pytest.approx(steps / 2)
    assert rate(steps, 2, threads=4) == pytest.approx(4 / (6 / steps))  # six busy threads on four cores


def test_costs_are_solved_for_and_bounded() -> None:
    assert costs([5.0, 14.0, 12.0], micro_batches=4, kept=2) == pytest.approx((3.0, 2.0, 2.0))
    assert costs([6.0, 6.0, 5.0], micro_batches=1, kept=1) == pytest.approx((6.0, 5.0, 0.0))  # nothing to solve for
    twice, once, rest = costs([9.0, 8.0, 1.0], micro_batches=4, kept=1)  # timed beside a noisy neighbour
    assert (twice, once, rest) == pytest.approx((1.0, 0.5, 4.0))


def test_sizes_and_names_of_gpus() -> None:
    assert parse_size("1.5GiB", "x") == 3 * GIB // 2
    assert [show_size(size) for size in (512, 3 << 20, 40 << 20, 3 * GIB)] == [
        "0.5 KiB",
        "3.0 MiB",
        "40 MiB",
        "3.0 GiB",
    ]
    for text in ("8", "8GB", "GiB", "0GiB", "-1GiB"):
        with pytest.raises(ZeroVLError, match="is not a size"):
            parse_size(text, "x")
    names = {"NVIDIA A100-SXM4-80GB": 80, "NVIDIA H100 80GB HBM3": 80, "Tesla V100-SXM2-16GB": 16, "h100": 80, "L4": 24}
    assert {name: row.memory_gib for name in names if (row := gpus.known(name))} == names
    assert gpus.known("NVIDIA GeForce GTX 1080") is None
