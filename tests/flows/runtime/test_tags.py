"""Releases as git tags that GTO and `dvc artifacts` read."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import pipeline, registry_command
from flows.runtime import tags
from flows.runtime.git import CheckoutError
from flows.runtime.switches import GIT_TAGS, PUSH_RUNS, Switch
from flows.server import ui
from tests.support.project_copy import commit, copy_project, git


def listed(root: Path) -> list[str]:
    return git(root, "tag", "--list", "--sort=refname").splitlines()


def test_versions_and_aliases(tmp_path: Path) -> None:
    root = copy_project(tmp_path / "project")
    first = git(root, "rev-parse", "HEAD")
    second = commit(root, "second")
    tags.tag_version(root, "zerovl", 1, first)
    tags.tag_version(root, "zerovl", 1, second)  # a version has one commit
    tags.tag_version(root, "zerovl", 2, second)
    assert listed(root) == ["zerovl@v1.0.0", "zerovl@v2.0.0"]
    assert git(root, "rev-parse", "zerovl@v1.0.0^{commit}") == first
    tags.tag_alias(root, "zerovl", 1, "production")
    tags.tag_alias(root, "zerovl", 1, "production")  # tried again
    tags.tag_alias(root, "zerovl", 2, "production")
    tags.tag_alias(root, "zerovl", 1, "production")  # a rollback
    tags.tag_alias(root, "zerovl", 7, "production")  # registered without tags
    moves = [name for name in listed(root) if "#" in name]
    assert moves == ["zerovl#production#1", "zerovl#production#2", "zerovl#production#3"]
    assert [git(root, "rev-parse", f"{name}^{{commit}}") for name in moves] == [first, second, first]


def test_tags_go_to_the_remote_also_those_of_an_earlier_attempt(tmp_path: Path) -> None:
    root = copy_project(tmp_path / "project")
    git(tmp_path, "init", "--quiet", "--bare", "remote.git")
    git(root, "remote", "add", "origin", str(tmp_path / "remote.git"))
    head = git(root, "rev-parse", "HEAD")
    tags.tag_version(root, "zerovl", 1, head)
    tags.tag_alias(root, "zerovl", 1, "production")
    tags.push(root, "origin", head)
    assert listed(tmp_path / "remote.git") == ["zerovl#production#1", "zerovl@v1.0.0"]


@pytest.mark.parametrize("switch", [GIT_TAGS, PUSH_RUNS], ids=lambda switch: switch.variable)
def test_the_setting_is_on_or_off_and_nothing_else(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(switch.variable, raising=False)
    assert not switch.wanted()
    for value, on in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv(switch.variable, value)
        assert switch.wanted() == on
    for value in ("off", "false", "no", "yes", "2"):
        monkeypatch.setenv(switch.variable, value)
        with pytest.raises(CheckoutError, match=f"^{switch.variable}={value}: 1 {switch.on}, 0 {switch.off}$"):
            switch.wanted()


def test_a_setting_that_nobody_understands_ends_a_flow_before_it_does_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(GIT_TAGS.variable, "off")
    done: list[str] = []
    monkeypatch.setattr(registry_command, "run_registry_command", lambda words: done.extend(words))
    with pytest.raises(CheckoutError, match="ZEROVL_GIT_TAGS=off"):
        registry_command.change_alias(["rollback"], "zerovl@production")
    monkeypatch.setattr(pipeline.checkouts, "make", lambda *_: done.append("checkout"))
    with pytest.raises(CheckoutError, match="ZEROVL_GIT_TAGS=off"):
        pipeline.open_checkout("HEAD")
    monkeypatch.setattr(ui, "signal", SimpleNamespace(signal=lambda *_: None))
    monkeypatch.setattr(ui, "serve", lambda *_: done.append("server"))
    monkeypatch.setattr(sys, "argv", ["ui"])
    with pytest.raises(SystemExit, match="ZEROVL_GIT_TAGS=off"):
        ui.main()
    assert done == []
