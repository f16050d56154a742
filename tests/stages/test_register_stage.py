"""What is registered, with what in it, and what is refused."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.register_stage import Write, released, run_stage, settings
from zerovl import params, params_file
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.registry import transfer
from zerovl.registry.registry import Registry
from zerovl.release import provenance
from zerovl.release.record import not_asked, read_release
from zerovl.workspace import Workspace

pytestmark = pytest.mark.usefixtures("registry_environment")


def test_nothing_large_is_imported_before_the_store_was_asked() -> None:
    """A flow tries four times where the store does not answer."""
    code = "import sys, zerovl.stages.register; print(*{'torch', 'timm', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_first_release(
    workspace: Workspace, write: Write, registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_stage(settings(), workspace)
    version = registry.resolve("zerovl@production")
    assert set(version.files) == {
        *("model.safetensors", "config.json", "tokenizer.json"),
        *("metrics.json", "provenance.json", "MODEL_CARD.md", "queries.parquet"),
        *("sample/pairs.tar", "sample/embeddings.safetensors"),
    }
    assert (version.number, version.by) == (1, "test-run")
    assert version.metrics["mean"]["rsum"] == 300.0
    record = released(workspace)
    assert record["files"] == {name: info.sha256 for name, info in version.files.items()}
    assert (record["version"], record["store"], record["alias"], record["promoted"]) == (
        1,
        "registry",
        "production",
        True,
    )
    assert record["verdict"]["passed"] is True
    assert record["metrics"]["rsum"] == 300.0
    printed = capsys.readouterr().out
    assert "registered zerovl@1 in registry" in printed
    assert "zerovl@production is version 1" in printed
    assert "  2 files in its sample" in printed
    assert '    model = zerovl.load("registry/zerovl@production")' in printed
    transfer.pull(registry.store, version, tmp_path / "out")
    origin = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert origin == version.provenance
    assert origin["data_manifest"] == "data-digest"
    assert origin["params"]["train"]["batch_size"] == Params().train.batch_size
    assert origin["training"] == {"final_loss": 0.5, "steps": 10}
    assert "run" not in origin
    assert origin["environment"]["torch"]
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert card.startswith("---\nlibrary_name: zerovl\n")
    assert "| shapes | 1,600 | 200 | 3 |" in card
    assert "| mean | 40.1 |" in card
    assert "| pool | 40.1 |" in card
    assert "| 300.0 | 292.5 to 308.2 |" in card
    assert 'zerovl.load("registry/zerovl@VERSION")' in card
    assert card.count("contains 16 validation pairs as its fixed sample") == 1


def test_scores_of_another_model_are_refused(workspace: Workspace, write: Write, registry: Registry) -> None:
    write(model_digest="0" * 64)
    with pytest.raises(ZeroVLError, match=r"metrics\.json: of another model than .*; run `dvc repro evaluate`"):
        run_stage(settings(), workspace)
    assert not registry.names()


def test_the_run_that_trained_the_model_is_kept(workspace: Workspace, write: Write, registry: Registry) -> None:
    run = {"fingerprint": "0123456789ab", "parent": {"run": "ba9876543210", "step": 40}}
    workspace.training_run.write_text(json.dumps(run))
    run_stage(settings(), workspace)
    assert registry.resolve("zerovl@production").provenance["run"] == run


def test_an_experiment_is_no_release_unless_it_is_asked_for(
    workspace: Workspace,
    write: Write,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DVC_STAGE", "register")
    monkeypatch.setenv("DVC_EXP_NAME", "higher-lr")
    run_stage(settings(), workspace)
    assert not registry.names()
    assert released(workspace) == {
        "registered": False,
        "name": "zerovl",
        "store": "registry",
        "alias": "production",
        "why": "it is the experiment higher-lr of DVC, and register.when is repro",
        "command": "zerovl registry add higher-lr",
        "model_digest": None,
    }
    assert read_release(workspace.release) is None
    printed = capsys.readouterr().out
    assert "nothing is registered: it is the experiment higher-lr of DVC" in printed
    assert "    zerovl registry add higher-lr" in printed
    run_stage(settings(when="always"), workspace)
    version = registry.resolve("zerovl@production")
    assert version.provenance["experiment"] == "higher-lr"
    assert read_release(workspace.release) == released(workspace)


@pytest.mark.parametrize(
    ("when", "environment", "command"),
    [
        ("repro", {"DVC_STAGE": "register"}, ""),
        ("repro", {"DVC_STAGE": "register", "DVC_EXP_NAME": "a"}, "zerovl registry add a"),
        ("always", {"DVC_STAGE": "register", "DVC_EXP_NAME": "a"}, ""),
        ("asked", {"DVC_STAGE": "register", "DVC_EXP_NAME": "a"}, "zerovl registry add a"),
        ("asked", {"DVC_STAGE": "register"}, "zerovl register"),
        ("asked", {}, ""),  # typed by hand
    ],
)
def test_who_asks_for_a_release(when: str, environment: dict[str, str], command: str) -> None:
    found = not_asked(settings(when=when).register_, environment)
    assert (found.command if found else "") == command


def test_again_is_the_same_release(workspace: Workspace, write: Write, registry: Registry) -> None:
    run_stage(settings(), workspace)
    record = workspace.release.read_bytes()
    (workspace.root / "dvc.lock").write_text("provenance differs, the model does not")
    run_stage(settings(), workspace)
    assert registry.numbers("zerovl") == [1]
    assert len(registry.history("zerovl", "production")) == 1
    values = json.loads(record)
    again = released(workspace)
    assert {**values, "verdict": None} == {**again, "verdict": None}


def test_a_release_of_uncommitted_files_is_warned_of(
    workspace: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("zerovl"), "propagate", True)
    commit = "3f2a" * 10
    for dirty in (False, True):
        monkeypatch.setattr(
            provenance, "git_state", lambda root, params, dirty=dirty: {"commit": commit, "dirty": dirty}
        )
        write(b"dirty" if dirty else b"clean")
        run_stage(settings(), workspace)
    said = "can be made again: commit before `dvc repro`"
    assert [each for each in caplog.messages if said in each] == [
        f"zerovl@2 {provenance.why_not_again({'git': {'commit': commit, 'dirty': True}})}"
    ]


def test_a_release_without_a_sample(workspace: Workspace, write: Write, registry: Registry) -> None:
    without = params_file.parse(params_file.merge(params.as_dict(Params()), {"evaluate": {"sample": 0}}), "test")
    run_stage(without, workspace)
    version = registry.resolve("zerovl@production")
    assert not [name for name in version.files if name.startswith("sample/")]
    folder = workspace.root / "out"
    transfer.pull(registry.store, version, folder)
    assert "fixed sample" not in (folder / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: (w.model / "model.safetensors").unlink(), "model.safetensors: missing or empty"),
        (lambda w: (w.model / "config.json").write_bytes(b""), "config.json: missing or empty"),
        (lambda w: (w.model / "last.pth").write_bytes(b"x"), "last.pth may hold a pickle"),
        (lambda w: (w.evaluation_report / "metrics.json").unlink(), "metrics.json: no such file"),
        (lambda w: (w.evaluation_report / "metrics.json").write_text("{}"), "no overall scores"),
        (lambda w: (w.evaluation_report / "metrics.json").write_text('{"overall": {}}'), "no rsum in their pool"),
        (lambda w: (w.evaluation_report / "queries.parquet").unlink(), "queries.parquet: no such file"),
        (lambda w: (w.evaluation_report / "sample" / "pairs.tar").unlink(), "pairs.tar: no such file"),
        (lambda w: (w.manifest / "manifest.json").write_text("{"), "manifest.json: not valid JSON"),
        (lambda w: (w.validation_report / "verdict.json").write_text('{"passed": false}'), "did not pass"),
        (
            lambda w: (w.validation_report / "verdict.json").write_text('{"passed": true, "manifest_digest": "old"}'),
            "of data old, but the manifest is data-digest",
        ),
    ],
)
def test_nothing_is_released_from_what_is_not_whole(
    workspace: Workspace, write: Write, registry: Registry, spoil: Callable[[Workspace], object], message: str
) -> None:
    spoil(workspace)
    with pytest.raises(ZeroVLError, match=message):
        run_stage(settings(), workspace)
    assert registry.names() == []
    assert not workspace.release.exists()
