"""`retrain` beside a release that lost the alias, without a server."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

import flows.retrain as module
from flows.runtime import changes
from flows.runtime.paths import Paths
from tests.support.registries import Bundle, promote, publish
from zerovl.params import Params
from zerovl.registry import retention
from zerovl.registry.registry import Registry
from zerovl.release import promote as promoting

pytestmark = pytest.mark.usefixtures("registry_environment", "unchecked")


def compare(folder: Path) -> str | None:
    checkout = SimpleNamespace(path=folder, paths=Paths(folder, folder / "state"))
    return module.compare_with_releases.fn(checkout, Params())  # type: ignore[no-any-return]


def test_nothing_new_says_who_took_the_alias_from_the_release(
    local: Registry, make_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(changes, "made_before", lambda checkout, settings, versions: versions[0])
    monkeypatch.setattr(changes, "unwatched_sources", lambda checkout, settings: [])
    for content in "ab":
        promote(local, publish(local, make_bundle(content), verdict={"passed": True}))
    said = compare(tmp_path)
    assert said
    assert "those of zerovl@2" in said
    assert "stays with" not in said
    promoting.rollback(local, "zerovl", "production", why="regression in search", by="Ada")
    said = compare(tmp_path)
    assert said
    assert "zerovl@production stays with zerovl@1: this model had it until a rollback to version 1 (move 3, " in said
    # Retired and registered again it has a number that never had the alias, and is the same model.
    retention.retire(local, local.version("zerovl", 2), "wrong captions", "Ada")
    assert publish(local, make_bundle("b"), verdict={"passed": True}).number == 3
    said = compare(tmp_path)
    assert said
    assert "`zerovl registry promote zerovl@3 production --why TEXT` does" in said
