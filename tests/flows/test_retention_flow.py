"""The flow `retention`: what it runs, in which order; the commands themselves are tested with the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

import flows.retention as module
from flows import registry_command
from zerovl import params_file


def test_it_retires_by_the_policy_and_then_removes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params_file.write(params_file.from_recipe({}, ["register.name=photos"], "test"), tmp_path / "params.yaml")
    monkeypatch.setenv("ZEROVL_ROOT", str(tmp_path))
    monkeypatch.setattr(module, "follow_worker", lambda run: None)
    monkeypatch.setattr(registry_command, "run_registry_command", " ".join)
    assert module.retention.fn() == "expire photos\ngc photos"
