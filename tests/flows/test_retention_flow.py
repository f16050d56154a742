"""The flow `retention` says what would go until it is asked to do it; the policy is tested with the registry."""

from __future__ import annotations

import runpy
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import Flow, State, Task

import flows.retention as module
from flows import command, outbox, registry_command
from flows.outbox import Page
from tests.support.registries import promote, publish
from zerovl import cli, params_file
from zerovl.registry import retention as policy
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store

pytestmark = pytest.mark.usefixtures("registry_environment", "unchecked")


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[Page]:
    """A project whose policy keeps the last version alone; the pages that the flow sends, without a server."""
    keep = ["register.keep.last=1", "register.keep.days=0", f"register.store={tmp_path / 'registry'}"]
    params_file.write(params_file.from_recipe({}, keep, "test"), tmp_path / "params.yaml")
    pages: list[Page] = []

    def run_it(words: list[str]) -> str:
        assert (
            cli.main(["registry", *words, *(["--params", str(tmp_path / "params.yaml")] * (words[0] == "expire"))]) == 0
        )
        return capsys.readouterr().out.strip()

    monkeypatch.setenv("ZEROVL_ROOT", str(tmp_path))
    monkeypatch.setenv("ZEROVL_STORE", str(tmp_path / "registry"))
    monkeypatch.setattr(module, "runtime", SimpleNamespace(flow_run=SimpleNamespace(id=None, name="old-owl")))
    monkeypatch.setattr(module, "outbox", lambda folder: nullcontext())
    monkeypatch.setattr(module, "send", pages.append)
    monkeypatch.setattr(registry_command, "run_registry_command", run_it)
    for name in ("versions_in_use", "show_versions"):
        monkeypatch.setattr(module, name, getattr(module, name).fn)
    return pages


def test_nothing_goes_unless_it_is_asked_to(tmp_path: Path, sent: list[Page]) -> None:
    assert module.retention.fn() == "there is no zerovl in the registry yet"
    registry = Registry(open_store(str(tmp_path / "registry")))
    versions = [publish(registry, {"model.safetensors": b"%d" % number}) for number in range(4)]
    promote(registry, versions[1])
    policy.retire(registry, versions[0], "by hand", "somebody")
    said = module.retention.fn()
    assert "zerovl@3: would be retired\n1 version would be retired; kept are the last 1" in said
    assert module.versions_in_use("zerovl") == {2, 3, 4}
    rows = [
        line for line in sent[0].data.splitlines() if line.startswith("- `zerovl@")
    ]  # no table: it cuts reasons off
    assert [row.split("`")[1] for row in rows] == ["zerovl@4", "zerovl@3", "zerovl@2", "zerovl@1"]
    ends = ["it is among the last 1", "register.keep does not keep it", "it is production", "by somebody: by hand"]
    assert all(row.endswith(end) for row, end in zip(rows, ends, strict=True))
    state = module.retention.fn(apply=True)
    assert (state.type, state.name) == ("COMPLETED", "Retired")  # which a notice waits for
    assert state.data == f"Retired: {state.message}"  # which a terminal prints
    assert state.message.startswith("zerovl@3; 1 version retired; kept are the last 1")
    assert state.message.endswith("; 0 files, 0 B removed")
    assert ", retired: it was retired " in sent[1].data
    assert "register.keep: kept are the last 1" in sent[1].data
    assert "0 versions retired" in module.retention.fn(apply=True)  # an end without a name: nobody is told again


def test_files_go_also_where_every_version_is_retired(tmp_path: Path, sent: list[Page]) -> None:
    registry = Registry(open_store(str(tmp_path / "registry")))
    policy.retire(registry, publish(registry, {"model.safetensors": b"0"}), "by hand", "somebody")
    assert module.versions_in_use("zerovl") == set()
    said = module.retention.fn(apply=True)
    assert "0 versions retired" in said
    assert "0 files, 0 B removed" in said  # they are in their grace time
    assert "by somebody: by hand" in sent[0].data


def test_the_command_says_what_the_flow_returns(
    tmp_path: Path, sent: list[Page], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m flows.retention`, whose flow and tasks are called as functions, without a server."""
    registry = Registry(open_store(str(tmp_path / "registry")))
    for number in range(2):
        publish(registry, {"model.safetensors": b"%d" % number})

    def called(its: Any, *given: Any, **named: Any) -> Any:
        found = its.fn(*given, **named)
        return found.data if isinstance(found, State) else found

    for kind in (Flow, Task):
        monkeypatch.setattr(kind, "__call__", called)
    monkeypatch.setattr(command, "start_own_server", lambda: None)
    monkeypatch.setattr(outbox, "outbox", lambda folder: nullcontext())
    monkeypatch.setattr(outbox, "send", sent.append)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__NAME", "old-owl")
    monkeypatch.setattr(sys, "argv", ["flows.retention"])
    warnings.simplefilter("ignore")  # the module is imported already; pytest resets the filters
    runpy.run_module("flows.retention", run_name="__main__")
    assert "zerovl@1: would be retired" in capsys.readouterr().out
    assert len(sent) == 1
    monkeypatch.setattr(sys, "argv", ["flows.retention", "--apply"])
    runpy.run_module("flows.retention", run_name="__main__")
    assert "Retired: zerovl@1; 1 version retired" in capsys.readouterr().out
