"""`zerovl plan`: numbers that can be counted by hand, honest gaps, and a calibration by real steps."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.shard_fixture import write as shards_of_pairs
from tests.support.tiny_project import RECIPE
from tests.support.towers import model
from zerovl import cli, params_file
from zerovl.command_line import project
from zerovl.commands import plan as command
from zerovl.data.manifest import Manifest, SplitInfo
from zerovl.errors import ZeroVLError
from zerovl.objective.loss import LOSSES, SoftmaxLoss
from zerovl.params import Params
from zerovl.params_file import from_recipe
from zerovl.planning import gpus, plan, show
from zerovl.planning.calibrate import Calibration
from zerovl.planning.make import Options, make_plan
from zerovl.planning.plan import Model, Plan
from zerovl.planning.planned_model import planned_architecture
from zerovl.planning.target import Target
from zerovl.planning.timed_steps import costs
from zerovl.sizing import shape_only_model
from zerovl.sizing.activations import Activations, Line
from zerovl.sizing.footprint import BatchLayout, ModelSize, Workload, footprint
from zerovl.sizing.shape_only_model import Parameters, TowerFlops
from zerovl.text_format import parse_size
from zerovl.text_format import size as show_size
from zerovl.workspace import Workspace

GIB = 1 << 30
EXAMPLE = re.compile(r"^  zerovl (plan.*?)(?:  .*)?$", re.MULTILINE)  # a line of the help, without its explanation
PAPER = ROOT / "recipes" / "sbu-cc3m.yaml"


@pytest.mark.parametrize(("loss", "bias"), [("softmax", None), ("sigmoid", -10.0)])
def test_the_planned_model_has_the_bias_of_its_loss(loss: str, bias: float | None, tmp_path: Path) -> None:
    architecture, _ = planned_architecture(from_recipe(RECIPE, [f"train.loss={loss}"], "tiny"), Workspace(tmp_path))
    assert architecture.logit_bias == bias
    projections = 2 * 32 * 16  # both towers are 32 wide, the space 16
    counted = shape_only_model.count(shape_only_model.imagine(architecture))
    assert counted.projections == projections + len(LOSSES[loss].parameters)


def write(folder: Path, *overrides: str) -> str:
    params_file.write(from_recipe(RECIPE, list(overrides), "tiny"), folder / "params.yaml")
    return str(folder / "params.yaml")


def settings(*overrides: str) -> Params:
    return from_recipe(RECIPE, ["train.batch_size=1024", "train.micro_batch=64", *overrides], "tiny")


def test_the_paper_s_model_is_planned_without_weights_gpus_or_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    assert cli.main(["recipe", str(PAPER)]) == 0
    assert (
        cli.main(
            ["plan", "--gpus", "8", "--gpu", "H100", "--gpu-memory", "16GiB", "--pairs", "14200000", "--json", "p"]
        )
        == 0
    )
    found = json.loads(Path("p").read_text())
    assert found["parameters"]["total"] == 195_476_737
    assert found["work"]["forward"] == pytest.approx(39.4e9, rel=0.005)
    assert found["work"]["plain"] == pytest.approx(3 * found["work"]["forward"])
    assert found["work"]["planned"] == pytest.approx(4 * found["work"]["forward"])
    assert found["steps"] == round(20 * 14_200_000 / 16384)
    # 256 TFLOP/s a GPU: 1,624 pairs/s
    assert found["assumed"]["pairs_per_second"] == pytest.approx(8 * 1624, rel=0.01)
    assert found["assumed"]["gpu_hours"] == pytest.approx(20 * 14_200_000 / 1624 / 3600, rel=0.01)
    assert found["wire"]["embeddings"] == 7 * 2048 * 512 * 4
    assert found["wire"]["gradients"] == pytest.approx(2 * 7 / 8 * 4 * 195_476_736, rel=1e-6)
    assert 5 * GIB < found["memory"]["total"] < 16 * GIB
    printed = capsys.readouterr().out
    for words in ("(assumed: 32% of 800 TFLOP/s)", "12 layers of width 768", "195.5M", "GPU-hours", "16.0 GiB a rank"):
        assert words in printed
    quicker = ("train.residual_stream=low", "machine.compile=true", "train.precision=bf16")
    write(tmp_path, *quicker)  # small towers: what is assumed of the GPU does not depend on them
    assert cli.main(["plan", "--gpus", "2", "--gpu", "H100"]) == 0
    assert "(assumed: 43% of 800 TFLOP/s)" in capsys.readouterr().out
    write(tmp_path)
    assert cli.main(["plan"]) == 0  # this machine, no data
    printed = capsys.readouterr().out
    assert "steps and hours are not known" in printed
    assert "not known: --measure times a few steps" in printed


EXAMPLES = EXAMPLE.findall(project._PLAN_EXAMPLES)


@pytest.mark.parametrize("words", [words for words in EXAMPLES if "--measure" not in words])
def test_the_examples_of_its_help_work_on_the_default_parameters(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but `--measure`, which takes real steps: `test_a_few_real_steps_calibrate_the_plan`, of small towers."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipe", "demo"]) == 0
    assert cli.main(words.split()) == 0


def test_a_source_that_the_gate_will_not_find_is_noted(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    splits = {("photos", split): SplitInfo(64, 64, 0, ()) for split in ("train", "valid")}
    Manifest(workspace.manifest, splits).save()
    path = write(tmp_path, "register.gate.min_source_rsum={photos: 1, gone: 1}")
    found = make_plan(params_file.load(path), path, Options(), workspace)
    assert [note for note in found.notes if "min_source_rsum: 'gone': no such source" in note]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(ranks=0), "--gpus 0: give 1 or more"),
        (Options(ranks=3, gpu="H100"), "train.batch_size 16 is not a multiple of ranks x micro_batch = 3 x 4"),
        (Options(gpu="TPU"), "'TPU': not in the table; name one of B200"),
        (Options(ranks=2, gpu_memory="16"), "--gpu-memory: '16' is not a size; write a number above 0 and KiB"),
        (Options(pairs=-1), "--pairs -1: give 1 or more"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: Options, words: str) -> None:
    with pytest.raises(ZeroVLError) as caught:
        make_plan(params_file.load(made := write(tmp_path)), made, options, Workspace(tmp_path))
    assert words in str(caught.value)


@pytest.mark.parametrize(("epoch_of", "visits", "noun"), [("pictures", 64, "pairs"), ("captions", 127, "captions")])
def test_steps_are_those_of_what_an_epoch_visits(tmp_path: Path, epoch_of: str, visits: int, noun: str) -> None:
    workspace = Workspace(tmp_path)
    Manifest(workspace.manifest, shards_of_pairs(tmp_path, {"web": 40, "art": 24}).manifest.splits).save()
    params = settings(f"train.epoch_of={epoch_of}", "train.batch_size=16", "train.micro_batch=16", "train.epochs=2")
    made = make_plan(params, "params.yaml", Options(), workspace)
    assert (made.pairs, made.steps) == (visits, round(2 * visits / 16))
    assert f"{visits / 16:,.1f} an epoch, 2 epochs over {visits} {noun}" in show.show(params, made)


def test_what_a_machine_without_gpus_cannot_know(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(ZeroVLError, match="name one with --gpu, or its memory with --gpu-memory"):
        make_plan(params_file.load(made := path), made, Options(ranks=2), Workspace(tmp_path))
    with pytest.raises(ZeroVLError, match="this machine, which has no GPU"):
        make_plan(params_file.load(made := path), made, Options(ranks=2, gpu="V100", measure=True), Workspace(tmp_path))


def test_a_text_tower_of_unknown_size_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "model.text_tower={name: nobody/knows-this, pretrained: false, config: {}}")
    with pytest.raises(ZeroVLError, match=r"(?s)is not on this machine.*a plan needs only its config\.json"):
        make_plan(params_file.load(made := path), made, Options(), Workspace(tmp_path))


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
    assert bare["embeddings"] == 6 * 512 * 16 * 4
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


def test_a_plan_for_nodes_holds_a_copy_on_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write(tmp_path, "machine.shard_model=true", "machine.shard_within=node", "train.batch_size=1024")
    gpu = Target("cuda", "x", 8, 16 * GIB, None)
    towers = plan.imagine_model(params_file.load(made), gpu, Workspace(tmp_path))
    monkeypatch.setattr(plan, "imagine_model", lambda *_: towers)  # the same on any number of nodes

    def planned(**options: Any) -> plan.Plan:
        return make_plan(params_file.load(made), made, Options(ranks=8, gpu="V100", **options), Workspace(tmp_path))

    one, two = planned(nodes=1), planned(nodes=2)
    assert two.memory.moments == pytest.approx(2 * one.memory.moments, abs=1)
    assert two.wire.gradients < one.wire.gradients
    assert any("say --nodes" in note for note in planned().notes)
    with pytest.raises(ZeroVLError, match=r"--nodes 3: 8 ranks are not a multiple of it"):
        planned(nodes=3)


def test_measured_speed_waits_for_the_slower_of_steps_and_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.os, "cpu_count", lambda: 4)
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


def test_a_few_real_steps_calibrate_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the example of the help."""
    write(tmp_path, "train.batch_size=64", "train.micro_batch=16", "machine.ranks=1", "machine.kept_graphs=1")
    monkeypatch.chdir(tmp_path)
    plans: list[Plan] = []

    def kept(*given: Any) -> Plan:
        plans.append(make_plan(*given))
        return plans[-1]

    monkeypatch.setattr(command, "make_plan", kept)
    (words,) = (words for words in EXAMPLES if "--measure" in words)
    assert cli.main([*words.split(), "--pairs", "6400"]) == 0
    (found,) = plans
    calibration, measured = found.calibration, found.measured
    assert calibration is not None
    assert measured is not None
    assert 0 < calibration.kept_seconds <= calibration.forward_twice_seconds
    assert calibration.loader_pairs_per_second is None
    assert measured.pairs_per_second == pytest.approx(64 / calibration.step_seconds(found.layout))
    assert measured.hours == pytest.approx(found.steps * measured.step_seconds / 3600)  # type: ignore[operator]
    assert 10 << 20 < found.peak_memory < GIB
    text = capsys.readouterr().out
    assert "4 micro-batches of 16, 1 with kept graphs" in text
    assert "of libraries and workspaces on top (measured)" in text
    assert "measured on" in text


@pytest.mark.parametrize(("ranks", "micro", "said"), [(2, 8, "8 pairs"), (4, 4, "4 pairs"), (16, 1, "1 pair")])
def test_ranks_that_have_less_than_a_micro_batch_are_planned_with_a_smaller_one(
    ranks: int, micro: int, said: str, tmp_path: Path
) -> None:
    """As `recipe auto` writes for few pairs: a batch of 16, in one micro-batch."""
    path = write(tmp_path, "train.batch_size=16", "train.micro_batch=16")
    found = make_plan(params_file.load(path), path, Options(ranks=ranks, gpu="H100"), Workspace(tmp_path))
    assert (found.layout.micro_batch, found.layout.micro_batches) == (micro, 1)
    (note,) = (note for note in found.notes if "micro_batch" in note)
    assert note.startswith(f"train.micro_batch 16 does not divide the {said} that each of {ranks} ranks has of a batch")
    assert f"Training needs train.micro_batch={micro} there" in note
    assert "1 micro-batch of" in show.show(params_file.load(path), found)
    alone = make_plan(params_file.load(path), path, Options(ranks=1, gpu="H100"), Workspace(tmp_path))
    assert not [note for note in alone.notes if "micro_batch" in note]


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
