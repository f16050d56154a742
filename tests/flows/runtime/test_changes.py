"""Whether there is anything new: data, code and parameters against the releases that were made before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.runtime import changes
from flows.runtime.paths import Paths
from tests.support.project_copy import commit, copy_project, git
from zerovl import params, params_file
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.registry.records import Move, Version
from zerovl.yaml_file import read_yaml


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")


def settings_of(root: Path, *overrides: str) -> Params:
    return params_file.from_recipe(read_yaml(root / "params.yaml"), list(overrides), "test")


def release(settings: Params, commit_id: str | None, *, dirty: bool = False) -> Version:
    origin: dict[str, Any] = {"params": params.as_dict(settings), "git": {"commit": commit_id, "dirty": dirty}}
    return Version("zerovl", 1, "0" * 64, "2026-01-01T00:00:00Z", "test", {}, {}, origin, None)


def test_the_same_is_nothing_new(root: Path) -> None:
    settings = settings_of(root)
    made = release(settings, git(root, "rev-parse", "HEAD"))
    assert changes.made_before(root, settings, [made]) == made
    # What a run or a promotion changes is not new to anyone, nor is documentation.
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    (root / "README.md").write_text("other words\n")
    (root / "data" / "start").mkdir()
    (root / "data" / "start" / "abc.dvc").write_text("outs:\n- path: abc\n  md5: abc.dir\n")
    commit(root, "later")
    assert (
        changes.made_before(root, settings_of(root, "register.alias=''", "train.init_from=data/start/abc"), [made])
        == made
    )


def test_a_release_of_before_there_were_filters_left_nothing_out(root: Path) -> None:
    without = settings_of(root, "prepare.filters.min_side=0", "prepare.filters.leaks=keep")
    made = release(without, git(root, "rev-parse", "HEAD"))
    del made.provenance["params"]["prepare"]["filters"]
    assert changes.made_before(root, without, [made]) == made
    assert changes.made_before(root, settings_of(root), [made]) is None


@pytest.mark.parametrize("path", ["data/raw.dvc", "raw.dvc", "zerovl/data/raw/pack.py", "dvc.yaml"])
def test_other_data_or_code_is_new(root: Path, path: str) -> None:
    settings = settings_of(root)
    made = release(settings, git(root, "rev-parse", "HEAD"))
    with open(root / path, "a", encoding="utf-8") as file:
        file.write("CHANGED = 1\n" if path.endswith(".py") else "# changed\n")
    git(root, "add", path)
    assert changes.made_before(root, settings, [made]) is None
    assert changes.why_new(root, settings, [made]) == f"zerovl@1 has the same parameters, but {path} changed since"
    commit(root, "changed")
    assert changes.made_before(root, settings, [made]) is None
    again = release(settings, git(root, "rev-parse", "HEAD"))
    assert changes.made_before(root, settings, [again, made]) == again


def test_other_parameters_are_new_and_so_is_what_cannot_be_compared(root: Path) -> None:
    settings, head = settings_of(root), git(root, "rev-parse", "HEAD")
    assert changes.made_before(root, settings_of(root, "train.lr=0.5"), [release(settings, head)]) is None
    dirty = release(settings, head, dirty=True)
    assert changes.made_before(root, settings, [dirty]) is None
    said = changes.why_new(root, settings, [dirty])
    assert said.startswith(
        f"zerovl@1 has the same parameters, but was made with files that differ from commit {head[:12]}"
    )
    none = "none of the newest 20 releases has the same parameters"
    assert changes.why_new(root, settings_of(root, "train.lr=0.5"), [dirty]) == none
    assert changes.made_before(root, settings, [release(settings, "0" * 40)]) is None
    lost = changes.why_new(root, settings, [release(settings, "0" * 40)])
    assert lost == "zerovl@1 has the same parameters, but this checkout does not have its commit 000000000000"
    assert changes.made_before(root, settings, [release(settings, None)]) is None
    assert changes.made_before(root, settings, []) is None


def test_code_that_no_stage_runs_is_nothing_new(root: Path) -> None:
    settings = settings_of(root)
    made = release(settings, git(root, "rev-parse", "HEAD"))
    # A comment in what a stage runs, and a change of a command, of how processes are watched, and of a new module.
    for path in ("engine/steps.py", "commands/compare.py", "distributed/watchdog.py", "unused.py"):
        with open(root / "zerovl" / path, "a", encoding="utf-8") as file:
            file.write("# no more than that\n" if path == "engine/steps.py" else "CHANGED = 1\n")
    commit(root, "no other model")
    assert changes.made_before(root, settings, [made]) == made


def test_code_of_before_there_were_digests_counts_by_its_files(root: Path) -> None:
    git(root, "rm", "--quiet", "zerovl/code_closure.py")
    settings, old = settings_of(root), commit(root, "before there was the module")
    git(root, "checkout", "--quiet", "HEAD~", "--", "zerovl/code_closure.py")
    commit(root, "the module")
    said = changes.why_new(root, settings, [release(settings, old)])
    assert said.endswith("but zerovl/code_closure.py changed since")


def test_of_many_changed_files_the_first_are_named(root: Path) -> None:
    settings = settings_of(root)
    made = release(settings, git(root, "rev-parse", "HEAD"))
    for name in "abcde":
        (root / "data" / f"{name}.dvc").touch()
    commit(root, "five imports")
    assert changes.why_new(root, settings, [made]).endswith(
        "but data/a.dvc, data/b.dvc, data/c.dvc and 2 more changed since"
    )


def test_settings_of_the_machine_are_nothing_new(root: Path) -> None:
    settings, head = settings_of(root), git(root, "rev-parse", "HEAD")
    other = settings_of(root, "machine.ranks=2", "machine.checkpoint_steps=7", "machine.restarts=0")
    made = release(settings, head)
    assert changes.made_before(root, other, [made]) == made
    # A release of before there was the section has those settings in `train`, and lacks what came later.
    sections = params.as_dict(settings)
    machine = sections.pop("machine")
    machine.pop("threads")
    sections["train"] |= machine | {"ranks": 4}
    del sections["train"]["continue_from"]
    origin = {"params": sections, "git": {"commit": head, "dirty": False}}
    old = replace(made, provenance=origin)
    assert changes.made_before(root, settings, [old]) == old
    assert changes.made_before(root, settings_of(root, "train.lr=0.5"), [old]) is None


def test_a_release_that_somebody_has_not_finished_with(root: Path, tmp_path: Path) -> None:
    paths = Paths(root, tmp_path / "state")
    made = replace(release(settings_of(root), None), by="run tacky-heron", verdict={"passed": True})
    held = Move("zerovl", "production", 1, "promote", 1, "2026-01-01T00:00:00Z", "", "", None)
    assert changes.unfinished(paths, made, [held]) == ""
    assert changes.unfinished(paths, made, None) == ""  # no alias is to move
    assert changes.unfinished(paths, made, []) == "zerovl@1 passed the gate and never had the alias"
    assert changes.unfinished(paths, made, [replace(held, version=2)]) != ""
    assert (
        changes.unfinished(paths, replace(made, verdict={"passed": False}), []) == ""
    )  # refused: that is the end of it
    (paths.checkouts / "tacky-heron").mkdir(parents=True)  # as a run that failed while it pushed leaves it
    assert "registered by run tacky-heron, which has not come" in changes.unfinished(paths, made, [held])
    assert changes.unfinished(paths, replace(made, by="someone"), [held]) == ""


def test_only_imports_are_refreshed(root: Path) -> None:
    (root / "data" / "own.dvc").write_text("outs:\n- path: own\n  md5: abc.dir\n")
    (root / "data" / "there.dvc").write_text("frozen: true\ndeps:\n- path: s3://bucket/raw\nouts:\n- path: there\n")
    commit(root, "data")
    assert changes.imports(root) == ["data/there.dvc"]


def test_digests_come_from_a_version_of_any_branch_that_can_be_read(root: Path) -> None:
    file = root / "data" / "raw.dvc"
    listed = "deps:\n- path: s3://bucket/raw\nouts:\n- path: raw\n"
    versions = (listed, f"{listed}  md5: abc.dir\n", f"{listed}<<<<<<< ours\n", listed)
    for number, text in enumerate(versions):
        file.write_text(text)
        commit(root, f"version {number}")
    assert not changes.has_digests(read_yaml(file))
    changes.take_over_digests(root, "data/raw.dvc")
    assert file.read_text() == versions[1]
    assert changes.has_digests(read_yaml(file))


def test_a_file_of_dvc_that_cannot_be_read_is_named(root: Path) -> None:
    (root / "data" / "own.dvc").write_text("outs:\n- path: own\n<<<<<<< ours\n")
    commit(root, "a merge")
    with pytest.raises(ZeroVLError, match=r"data/own\.dvc: not valid YAML: line 4"):
        changes.imports(root)


def test_sources_that_dvc_does_not_watch(root: Path) -> None:
    settings = settings_of(
        root,
        "data.raw=data/raw",
        "data.sources=[{name: a, path: data/raw/a}, {name: b, path: 's3://bucket/b'}]",
    )
    assert changes.unwatched_sources(root, settings) == ["s3://bucket/b"]
    assert changes.unwatched_sources(root, settings_of(root)) == []
    assert changes.unwatched_sources(root, settings_of(root, "data.raw=/mnt/pairs")) == ["/mnt/pairs"]
