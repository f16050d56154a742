"""`zerovl plan`: the paper's model, examples of the help, honest gaps, and a calibration by real steps."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.shard_fixture import write as shards_of_pairs
from tests.support.tiny_project import RECIPE
from zerovl import cli, params_file
from zerovl.command_line import project
from zerovl.commands import plan as command
from zerovl.data.manifest import Manifest, SplitInfo
from zerovl.errors import ZeroVLError
from zerovl.objective.loss import LOSSES
from zerovl.params_file import from_recipe
from zerovl.planning import plan, show
from zerovl.planning.make import Options, make_plan
from zerovl.planning.plan import Plan
from zerovl.planning.planned_model import planned_architecture
from zerovl.planning.target import Target
from zerovl.sizing import shape_only_model
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


@cache
def small_towers(kind: str) -> plan.Model:
    """The towers of the tests' recipe on a kind of device."""
    params = from_recipe(RECIPE, [], "tiny")
    return plan.imagine_model(params, Target(kind, "x", 1, 16 * GIB, None), Workspace(Path("nowhere")))


@pytest.fixture
def small_towers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imagine them once, where neither ranks nor batches nor data are what they depend on."""
    known = {kind: small_towers(kind) for kind in ("cpu", "cuda")}
    monkeypatch.setattr(plan, "imagine_model", lambda _params, target, _workspace: known[target.kind])


def write(folder: Path, *overrides: str) -> str:
    params_file.write(from_recipe(RECIPE, list(overrides), "tiny"), folder / "params.yaml")
    return str(folder / "params.yaml")


def test_pictures_that_the_tower_does_not_take_are_told_with_the_fix(tmp_path: Path) -> None:
    vit = ["model.image_tower.name=vit_tiny_patch16_224", "model.image_tower.options={}"]
    for key in ("model", "train"):
        sizes = ["model.image_size=224", "model.resize_size=256", f"{key}.image_size=64"]
        with pytest.raises(ZeroVLError, match=rf"{key}\.image_size 64 does not fit .*; add img_size: 64 to model"):
            planned_architecture(from_recipe({}, [*vit, *sizes], "demo"), Workspace(tmp_path))


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
    assert found["work"]["planned"] == pytest.approx((4 - 1 / 16) * found["work"]["forward"])
    assert found["steps"] == round(20 * 14_200_000 / 16384)
    # 256 TFLOP/s a GPU: 1,650 pairs/s
    assert found["assumed"]["pairs_per_second"] == pytest.approx(8 * 1650, rel=0.01)
    assert found["assumed"]["gpu_hours"] == pytest.approx(20 * 14_200_000 / 1650 / 3600, rel=0.01)
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


@pytest.mark.usefixtures("small_towers_once")
def test_a_source_that_the_gate_will_not_find_is_noted(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    splits = {("photos", split): SplitInfo(64, 64, 0, ()) for split in ("train", "valid")}
    Manifest(workspace.manifest, splits).save()
    path = write(tmp_path, "register.gate.min_source_rsum={photos: 1, gone: 1}")
    found = make_plan(params_file.load(path), path, Options(), workspace)
    assert [note for note in found.notes if "min_source_rsum: 'gone': no such source" in note]


@pytest.mark.usefixtures("small_towers_once")
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


@pytest.mark.usefixtures("small_towers_once")
@pytest.mark.parametrize(
    ("epoch_of", "visits", "epochs", "told"),
    [("pictures", 64, 2.0, "2 epochs over 64 pairs"), ("captions", 127, 1.0, "1 epoch over 127 captions")],
)
def test_steps_are_those_of_what_an_epoch_visits(
    tmp_path: Path, epoch_of: str, visits: int, epochs: float, told: str
) -> None:
    workspace = Workspace(tmp_path)
    Manifest(workspace.manifest, shards_of_pairs(tmp_path, {"web": 40, "art": 24}).manifest.splits).save()
    changes = [f"train.epoch_of={epoch_of}", "train.batch_size=16", "train.micro_batch=16", f"train.epochs={epochs}"]
    params = from_recipe(RECIPE, changes, "tiny")
    made = make_plan(params, "params.yaml", Options(), workspace)
    assert (made.pairs, made.steps) == (visits, round(epochs * visits / 16))
    assert f"{visits / 16:,.1f} an epoch, {told}" in show.show(params, made)


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


@pytest.mark.usefixtures("small_towers_once")
def test_a_plan_for_nodes_holds_a_copy_on_each(tmp_path: Path) -> None:
    made = write(tmp_path, "machine.shard_model=true", "machine.shard_within=node", "train.batch_size=1024")

    def planned(**options: Any) -> plan.Plan:
        return make_plan(params_file.load(made), made, Options(ranks=8, gpu="V100", **options), Workspace(tmp_path))

    one, two = planned(nodes=1), planned(nodes=2)
    assert two.memory.moments == pytest.approx(2 * one.memory.moments, abs=1)
    assert two.wire.gradients < one.wire.gradients
    assert any("say --nodes" in note for note in planned().notes)
    with pytest.raises(ZeroVLError, match=r"--nodes 3: 8 ranks are not a multiple of it"):
        planned(nodes=3)


@pytest.mark.usefixtures("small_towers_once")
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


@pytest.mark.usefixtures("small_towers_once")
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
