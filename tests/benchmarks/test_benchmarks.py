"""The benchmarks end to end with tiny settings, and the fairness of what they compare with."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import (
    bench_gpu,
    bench_loss,
    bench_memory,
    bench_step,
    bench_train,
    gpu,
    gpu_loss,
    kinds,
    page,
    step_options,
    tables,
)
from benchmarks.child import in_child, in_process
from benchmarks.common import RESULTS, NotMeasured
from benchmarks.peers import inf_cl_loss, open_clip_loss
from benchmarks.towers import TOWERS, caption_lengths, make, make_batch
from tests.support.fork_server import start_zerovl
from zerovl.distributed.ranks import Ranks
from zerovl.engine.model_options import Side, prepare_model
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import MachineParams
from zerovl.workspace import Workspace

CPU = torch.device("cpu")


class ClipLoss(nn.Module):
    """Stands in for open_clip's, so that the tests of the benchmarks need no peer."""

    def forward(self, image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        logits, own = scale * image @ text.T, torch.arange(len(image), device=image.device)
        return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("open_clip"), ModuleType("open_clip.loss")
    module.ClipLoss = ClipLoss  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "open_clip", package)
    monkeypatch.setitem(sys.modules, "open_clip.loss", module)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled towers run uncompiled: a compilation takes longer than all else here."""

    def prepare(model: DualEncoder, freeze: list[Side], machine: MachineParams, ranks: Ranks) -> None:
        prepare_model(model, freeze, machine.model_copy(update={"compile": False}), ranks)

    for module in (bench_gpu, step_options):
        monkeypatch.setattr(module, "prepare_model", prepare)


@pytest.mark.usefixtures("open_clip", "no_compiler")
def test_all_benchmarks_run_and_their_tables_hold_what_they_measured(tmp_path: Path) -> None:
    committed = page.PAGE.read_text(encoding="utf-8")
    commands: dict[str, Callable[[list[str]], int]] = {
        "loss": lambda arguments: bench_loss.main(arguments, in_process),
        "step": lambda arguments: bench_step.main(arguments, in_process),
        "memory": lambda arguments: bench_memory.main(arguments, in_process),
        "gpu": bench_gpu.main,
    }
    found: dict[str, dict[str, Any]] = {}
    for name, command in commands.items():
        assert command(["--smoke", "--out", str(tmp_path / f"{name}.json")]) == 0
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
        assert {"date", "machine", "code", "settings"} < found[name].keys()
        assert found[name]["machine"]["torch"] == torch.__version__.partition("+")[0]

    assert {record["loss"] for record in found["loss"]["time"].values()} == {"open_clip ClipLoss", "tiled", "dense"}
    assert found["loss"]["stability"]["without the shift by the maximum, 0.001"]["gradient_error"] is None
    assert all(record["gradient_error"] < 1e-4 for record in _of(found["loss"]["stability"], "tiled"))
    assert [record["kind"] for record in found["step"]["time"].values()] == list(_finders(kept=1))
    assert all(record["ratio"] > 0 for record in found["step"]["options"].values())
    assert all(record["extra_mib"] >= 0 for record in found["step"]["option memory"].values())
    assert len(found["memory"]["memory"]) == 9
    assert {"plain", "large batch", "compiled", "memory", "checkpointing", "loss", "loss parity"} < found["gpu"].keys()
    assert all(record["pairs_per_second"] > 0 for record in found["gpu"]["large batch"].values())
    assert list(found["gpu"])[-1] == "compiled"  # it takes the longest to begin: the others have gone before

    rendered = {name: make_table(tmp_path) for name, make_table in page.TABLES.items()}
    assert f"{found['gpu']['large batch']['DGA, 8, 4']['pairs_per_second']:,.0f} |" in rendered["gpu steps"]
    assert f"{found['step']['time']['DGA, tiny']['ratio']:.2f} (" in rendered["step time"]
    assert "overflows" in rendered["loss stability"]
    assert "needs a GPU" in rendered["gpu loss"] or torch.cuda.is_available()
    assert page.PAGE.read_text(encoding="utf-8") == committed  # a smoke run leaves the page alone


def test_training_end_to_end_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its training is forked, as that imports for longer than it trains; `prepare` is started as users have it."""
    started = bench_train._zerovl

    def start(workspace: Workspace, command: str) -> None:
        if command != "train":
            return started(workspace, command)
        child = start_zerovl(command, cwd=workspace.root)
        _, err = child.communicate(timeout=500)
        assert child.returncode == 0, err

    monkeypatch.setattr(bench_train, "_zerovl", start)
    out = tmp_path / "train.json"
    assert bench_train.main(["--smoke", "--workers", "1", "--work", str(tmp_path / "work"), "--out", str(out)]) == 0
    (record,) = json.loads(out.read_text())["train"].values()
    assert record["pairs_per_second"] >= record["slowest"] > 0
    assert 0 <= record["data_share"] <= 1
    assert f"| {record['pairs_per_second']:,.0f} | {record['data_share']:.1%} |" in tables.train(tmp_path)


def _of(records: dict[str, Any], loss: str) -> list[dict[str, Any]]:
    return [record for record in records.values() if record["loss"] == loss]


def _finders(kept: int) -> dict[str, Any]:
    return kinds.finders(make("tiny", CPU), CPU, "float32", kept)


def test_the_committed_page_is_what_the_result_files_say() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.render(text, RESULTS) == text, "run python -m benchmarks.page"


def test_a_page_without_a_tables_place_is_refused() -> None:
    with pytest.raises(ValueError, match="places"):
        page.render("<!-- loss time -->\n<!-- end loss time -->", RESULTS)


@pytest.mark.usefixtures("open_clip")
def test_all_kinds_of_step_compute_the_same_gradient() -> None:
    """Else their times could not be compared. open_clip sums the temperature's gradient once a micro-batch."""
    model = make("tiny", CPU).eval()  # without dropout, which open_clip does not replay
    found = {}
    for kind, find in kinds.finders(model, CPU, "float32", kept=1).items():
        kinds.run_step(find(), model, make_batch("tiny", 8, 8 if kind in kinds.WHOLE else 2))
        found[kind] = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    plain = found.pop(kinds.PLAIN)
    assert len(found) == 6
    for kind, gradients in found.items():
        times = 4 if kind == kinds.ACCUM else 1
        torch.testing.assert_close(gradients.pop("temperature"), times * plain["temperature"], rtol=1e-3, atol=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, plain[name], rtol=1e-3, atol=1e-6, msg=f"{kind}: {name}")


def test_grad_cache_replays_dropout() -> None:
    model = make("tiny", CPU)
    step = kinds.finders(model, CPU, "float32", kept=0)[kinds.GRAD_CACHE]()
    calls: list[Tensor] = []
    model.text_projection.register_forward_hook(lambda _module, _inputs, output: calls.append(output.detach()))
    kinds.run_step(step, model, make_batch("tiny", 4, 2))
    first, second = torch.cat(calls[:2]), torch.cat(calls[2:])
    torch.testing.assert_close(first, second)
    calls.clear()
    kinds.run_step(step, model, make_batch("tiny", 4, 2))
    assert not torch.allclose(torch.cat(calls[:2]), first)


class Absent:
    """Finds no peer, as where none is installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in ("open_clip", "inf_cl"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_missing_peers_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("open_clip", "open_clip.loss", "inf_cl"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(NotMeasured, match="open_clip_torch is not installed"):
        open_clip_loss()
    with pytest.raises(NotMeasured, match="inf-cl is not installed"):
        inf_cl_loss("cal_flash_loss", torch.device("cuda"))
    with pytest.raises(NotMeasured, match="needs a GPU"):
        inf_cl_loss("cal_flash_loss", CPU)


@pytest.mark.usefixtures("no_compiler", "open_clip")
def test_a_gpu_run_goes_on_past_what_fails_and_measures_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer whose kernels do not compile, in loss and step, and a model that cannot be made."""
    file = tmp_path / "gpu.json"

    def refused(*_: Any) -> Any:
        raise ValueError("OutOfResources")

    with monkeypatch.context() as patch:
        patch.setattr(ClipLoss, "forward", refused)
        patch.setattr(gpu_loss, "tiled", refused)  # the only one without a peer, at the largest size
        make_model = bench_gpu.Bench.model
        patch.setattr(
            bench_gpu.Bench,
            "model",
            lambda self, machine=None: refused() if machine and machine.compile else make_model(self),
        )
        assert bench_gpu.main(["--smoke", "--out", str(file)]) == 1
    found = json.loads(file.read_text())
    failed = {"not_measured": "ValueError: OutOfResources", "failed": True}
    assert found["parts"] == {"compiled": failed}
    for section in ("loss", "plain", "large batch", "memory"):
        records = {name: record for name, record in found[section].items() if "open_clip" in name}
        assert records
        assert all(failed.items() <= record.items() for record in records.values()), records
    assert all(failed.items() <= record.items() for record in found["loss parity"].values())
    ours = {name: record for name, record in found["large batch"].items() if name.startswith("DGA")}
    assert ours
    assert all(record["pairs_per_second"] > 0 for record in ours.values())
    for name in ("gpu steps", "gpu memory", "gpu loss", "gpu parity"):
        assert "ValueError: OutOfResources" in page.TABLES[name](tmp_path)

    assert bench_gpu.main(["--smoke", "--out", str(file)]) == 0
    again = json.loads(file.read_text())
    assert "parts" not in again
    assert "OutOfResources" not in file.read_text()
    assert all(record["pairs_per_second"] > 0 for record in again["compiled"].values())
    assert ours.items() <= again["large batch"].items()  # what was there stays


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_gpu.main(["--out", str(tmp_path / "gpu.json")]) == 2
    assert "no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert "| not measured |" in tables.gpu_steps(tmp_path)


@pytest.mark.parametrize("figures", [0, 1, 4])
def test_a_run_that_ends_early_keeps_what_it_had(
    figures: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses come first, and the minutes hold for them too."""
    begun: list[int] = []

    def check(_: gpu.Deadline) -> None:
        if len(begun) == figures:
            raise gpu.MinutesAreUp
        begun.append(1)

    monkeypatch.setattr(gpu.Deadline, "check", check)
    file = tmp_path / "gpu.json"
    assert bench_gpu.main(["--smoke", "--minutes", "9", "--out", str(file)]) == 0
    assert "9 minutes are up; the same command goes on from here" in capsys.readouterr().out
    found = json.loads(file.read_text()) if figures else {}
    assert len(found.get("loss parity", {})) == min(figures, 2)
    assert "large batch" not in found


def test_no_minutes_are_up_at_once() -> None:
    with pytest.raises(gpu.MinutesAreUp):
        gpu.Deadline(-1).check()
    gpu.Deadline(1).check()


def test_a_fresh_process_measures_its_own_peak() -> None:
    record = in_child("benchmarks.bench_loss:peak", name="dense", pairs=1024, width=16)
    logits = 1024 * 1024 * 4 / 2**20
    assert 3 * logits < record["extra_mib"] < 12 * logits


def test_batches_are_padded_to_their_longest_caption() -> None:
    lengths = caption_lengths(64)
    longest = make_batch("tiny", 64, 16, lengths)
    padded = make_batch("tiny", 64, 16, lengths, padded_to=25)
    assert [part.input_ids.shape[1] for part in longest] == [lengths[i : i + 16].max() for i in range(0, 64, 16)]
    assert all(part.input_ids.shape == (16, 25) for part in padded)
    assert all(
        torch.equal(part.attention_mask.sum(dim=1), full.attention_mask.sum(dim=1))
        for part, full in zip(longest, padded, strict=True)
    )


def test_settings_agree_with_the_goals() -> None:
    assert gpu_loss.Settings().sizes[-1] == 65536
    for settings in (gpu_loss.Settings(), gpu_loss.SMOKE):
        assert settings.width % 256 == 0  # Inf-CL's kernels take a width in pieces of 256
    assert bench_gpu.Settings().pool % max(bench_gpu.Settings().micro_batches) == 0
    for size in (*bench_gpu.Settings().plain_batches, *bench_gpu.Settings().checkpointed):
        assert bench_gpu.Settings().pool % size == 0  # views of the pool never cross its end
    assert TOWERS["base"].image_size == 224
    pinned = (Path(page.PAGE).parent / "peers.txt").read_text()
    assert set(re.findall(r"^([a-z-]+)==", pinned, re.MULTILINE)) == {"ftfy", "inf-cl", "open-clip-torch"}
