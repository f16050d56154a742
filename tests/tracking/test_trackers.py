"""Which trackers a run has, and a training that tells one."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.tiny_project import recipe
from zerovl.commands import track
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sha256_file, write_json
from zerovl.params import as_dict
from zerovl.tracking import following, trackers
from zerovl.tracking.facts import Facts, read_facts, write_facts
from zerovl.tracking.trackers import TRACKERS, Kind, asked_for
from zerovl.workspace import Workspace

URI = "MLFLOW_TRACKING_URI"


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URI, raising=False)


def installed(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setitem(TRACKERS, name, Kind(TRACKERS[name].make, package))


def test_none_are_asked_for_unless_they_are_named() -> None:
    assert asked_for(recipe()) == ()


def test_an_address_alone_stands_for_mlflow(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(URI, "http://127.0.0.1:1")
    installed(monkeypatch, "mlflow", "json")
    installed(monkeypatch, "tensorboard", "json")
    assert asked_for(recipe("machine.tracking=[tensorboard]")) == ("tensorboard", "mlflow")
    assert asked_for(recipe("machine.tracking=[mlflow, mlflow]")) == ("mlflow",)
    assert not caplog.records
    installed(monkeypatch, "mlflow", "no_such_package")
    assert asked_for(recipe()) == ()
    assert "pip install 'zerovl[tracking-mlflow]'" in caplog.text


def test_what_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, "wandb", "no_such_package")
    with pytest.raises(ZeroVLError, match=r"wandb: no_such_package is not installed; run `pip install 'zerovl\[track"):
        trackers.check(recipe("machine.tracking=[wandb]"))
    installed(monkeypatch, "wandb", "wandb_of_a_run")
    (tmp_path / "wandb_of_a_run").mkdir()  # as W&B leaves one where it ran
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ZeroVLError, match="is not installed"):
        trackers.check(recipe("machine.tracking=[wandb]"))
    installed(monkeypatch, "mlflow", "json")
    with pytest.raises(ZeroVLError, match=rf"mlflow: {URI} is not set; set it to the server's address"):
        trackers.check(recipe("machine.tracking=[mlflow]"))


@pytest.fixture
def evaluated(tmp_path: Path) -> Workspace:
    """A model with its scores, and a release of it, of a run that was tracked."""
    workspace = Workspace(tmp_path)
    workspace.model.mkdir()
    weights = workspace.model / "model.safetensors"
    weights.write_bytes(b"weights")
    digest = sha256_file(weights)
    write_json(workspace.training_run, {"fingerprint": "abc"})
    write_json(workspace.training_metrics, {"steps": 12})
    write_json(workspace.evaluation_metrics, {"model_digest": digest})
    write_json(workspace.evaluation_scores, {"RSUM": 512.3, "loss": 0.4})
    release = {"name": "birds", "version": 3, "store": "registry", "alias": "production", "promoted": True}
    write_json(workspace.release, {**release, "files": {"model.safetensors": digest}})
    write_facts(workspace.runs / "abc", Facts.of(recipe(), 12, {"data": "d"}))
    return workspace


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
    """What trackers would be told, none of which is called."""
    facts: list[Facts] = []

    def tell(_names: object, _folder: Path, its: Facts, _seconds: float = 0.0) -> bool:
        facts.append(its)
        return True

    monkeypatch.setattr(track, "bring_up_to_date", tell)
    installed(monkeypatch, "tensorboard", "json")
    return facts


TRACKED = "machine.tracking=[tensorboard]"


def test_scores_and_release_of_the_runs_own_model_are_told(evaluated: Workspace, told: list[Facts]) -> None:
    track.tell(recipe(TRACKED), evaluated)
    assert told[0].scores == {"evaluation/RSUM": 512.3}
    assert told[0].notes == {
        "data": "d",
        "release": "birds@3",
        "release_uri": str(evaluated.root.resolve() / "registry" / "birds@3"),
        "release_alias": "production",
    }


def test_scores_and_release_of_another_model_are_not(evaluated: Workspace, told: list[Facts]) -> None:
    write_json(evaluated.release, read_json(evaluated.release) | {"files": {"model.safetensors": "other"}})
    track.tell(recipe(TRACKED), evaluated)
    assert (told[0].scores, told[0].notes) == ({"evaluation/RSUM": 512.3}, {"data": "d"})
    (evaluated.model / "model.safetensors").write_bytes(b"of a training since")
    track.tell(recipe(TRACKED), evaluated)
    assert (told[1].scores, told[1].notes) == ({}, {"data": "d"})


def test_a_stage_that_cannot_tell_is_done_all_the_same(
    evaluated: Workspace, told: list[Facts], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    installed(monkeypatch, "wandb", "no_such_package")
    track.tell(recipe("machine.tracking=[wandb]"), evaluated)
    assert "then `zerovl track` tells what this stage found" in caplog.text
    track.tell(recipe(), evaluated)
    facts = evaluated.runs / "abc" / "tracking" / "facts.json"
    write_json(facts, read_json(facts) | {"of_a_later_version": 1})
    track.tell(recipe(TRACKED), evaluated)
    track.tell_release(recipe(TRACKED), evaluated.runs / "abc", {"release": "birds@4"})
    assert caplog.text.count("facts.json: not what this version writes") == 2
    evaluated.training_run.unlink()
    track.tell(recipe(TRACKED), evaluated)
    assert not told


def test_a_release_that_is_added_later_is_told(evaluated: Workspace, told: list[Facts]) -> None:
    notes = track.release_notes("birds@4", "s3://bucket/models/", "")
    assert notes == {"release": "birds@4", "release_uri": "s3://bucket/models/birds@4", "release_alias": "none"}
    track.tell_release(recipe(TRACKED), evaluated.runs / "abc", notes)
    assert told[0].notes == {"data": "d", **notes}
    track.tell_release(recipe(TRACKED), evaluated.runs / "of another machine", notes)
    track.tell_release(recipe(), evaluated.runs / "abc", notes)
    assert len(told) == 1


def test_a_process_that_hangs_is_ended_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    installed(monkeypatch, "tensorboard", "json")
    monkeypatch.setattr(following, "_INTERRUPTED_SECONDS", 0.01)
    sleeping = subprocess.Popen(["sleep", "600"], stdin=subprocess.PIPE)
    monkeypatch.setattr(following, "_start", lambda *_: sleeping)
    with following.tracked(recipe(TRACKED), tmp_path, 12, {}) as senders:
        senders.ended("interrupted")
    assert sleeping.returncode == -signal.SIGKILL
    assert "tensorboard: did not end within 0.01 s" in caplog.text
    facts = read_facts(tmp_path)
    assert facts is not None
    assert facts.state == "interrupted"


def test_all_that_hang_are_waited_for_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging:
        def __init__(self, *_: object) -> None:
            self.stdin = io.BytesIO()

        def wait(self, seconds: float | None = None) -> int:
            waited.append(seconds)
            if seconds is None:
                return -9
            now[0] += seconds
            raise subprocess.TimeoutExpired("sender", seconds)

        def kill(self) -> None:
            assert self.stdin.closed

    waited: list[float | None] = []
    now = [0.0]
    monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(following, "_start", Hanging)
    senders = following.Senders(["mlflow", "tensorboard", "wandb"], tmp_path)
    assert not senders.close(25.0)
    assert waited == [25.0, None, 0.0, None, 0.0, None]


def test_a_full_disk_does_not_hide_why_a_training_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **_values: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(following, "change_facts", full)
    with pytest.raises(ZeroVLError, match="not finite"), following.tracked(recipe(), tmp_path, 12, {}):
        raise ZeroVLError("the loss is not finite")
    assert "No space left on device; then `zerovl track` tells" in caplog.text


def test_a_run_that_was_never_tracked_is_told_with_its_own_parameters(
    evaluated: Workspace, told: list[Facts], capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluated.runs / "abc"
    shutil.rmtree(run / "tracking")
    model = as_dict(recipe(TRACKED).model)
    own = {"model": model, "train": {"lr": 0.5}, "data": "digest", "parent": {"run": "def", "step": 7}}
    write_json(run / "fingerprint.json", own)
    with pytest.raises(ZeroVLError, match=r"params\.yaml is not the run's any more \(train\.lr was 0\.5, is 0\.25\)"):
        track.track(recipe(TRACKED, "train.lr=0.25"), evaluated)
    # What stands in no such file has the value that runs of before had.
    with pytest.raises(ZeroVLError, match=r"train\.ema_decay was 0\.0, is 0\.9"):
        track.track(recipe(TRACKED, "train.lr=0.5", "train.ema_decay=0.9"), evaluated)
    assert not told
    assert track.track(recipe(TRACKED, "train.lr=0.5"), evaluated) == 0
    assert capsys.readouterr().out == f"{run}: tensorboard knows all of it\n"
    assert (told[0].state, told[0].steps, told[0].parameters["train.lr"]) == ("finished", 12, "0.5")
    assert told[0].notes["data"] == "digest"
    assert told[0].notes["goes_on_from"] == "def@7"
    assert told[0].scores == {"evaluation/RSUM": 512.3}


def test_track_needs_a_tracker_and_a_run(evaluated: Workspace, told: list[Facts]) -> None:
    with pytest.raises(ZeroVLError, match="no tracker: name one"):
        track.track(recipe(), evaluated)
    evaluated.training_run.unlink()
    with pytest.raises(ZeroVLError, match="names no run in"):
        track.track(recipe(TRACKED), evaluated)


def test_several_trackers_know_all_of_it(
    evaluated: Workspace, told: list[Facts], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'zerovl[tracking-mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert (track.track(recipe(TRACKED), evaluated), len(told)) == (0, 1)
    assert capsys.readouterr().out.endswith("know all of it\n")
