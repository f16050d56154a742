"""Versions out of use and their files: what is protected, what is removed, and nobody beside it loses anything."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.registries import Bundle, promote, publish
from tests.support.retirement import OWN, collect, retire, small
from zerovl import cli, params_file
from zerovl.errors import ZeroVLError
from zerovl.params import KeepParams
from zerovl.registry import collection, fetch, keys, notes, retention, transfer
from zerovl.registry.notes import RetiredError
from zerovl.registry.records import Move, Note, Version, now
from zerovl.registry.registry import Registry
from zerovl.release.promote import rollback

pytestmark = pytest.mark.usefixtures("registry_environment", "unchecked")


def test_a_version_from_its_retirement_to_the_removal_of_its_files(registry: Registry, tmp_path: Path) -> None:
    first, second = publish(registry, small()), publish(registry, small(b"other"))
    promote(registry, second)
    retire(registry, first)
    with pytest.raises(RetiredError, match=r"zerovl@1 was retired 20.* UTC by tester: of no use; use another version"):
        promote(registry, first, "staging")
    with pytest.raises(RetiredError, match="zerovl@1 was retired"):
        fetch.resolve(f"{registry.store.uri}/zerovl@1")
    transfer.verify(registry.store, first)  # all of it is there yet
    assert collection.collect(registry, "zerovl", collection.grace(7), "tester") == []
    before = registry.store.keys("")
    (found,) = collection.garbage(registry, "zerovl", now())
    assert (found.path, found.size, found.versions) == ("model.safetensors", len(OWN), (1,))
    assert registry.store.keys("") == before  # a look changes nothing
    assert collect(registry) == ["model.safetensors"]
    assert collect(registry) == []
    assert set(before) - set(registry.store.keys("")) == {found.key}
    transfer.verify(registry.store, second)
    out = tmp_path / "out"
    for use in (lambda: transfer.verify(registry.store, first), lambda: transfer.pull(registry.store, first, out)):
        with pytest.raises(RetiredError, match=r"retired .*: of no use; its files were removed"):
            use()
    with pytest.raises(RetiredError, match="its files are gone or marked for removal, so it stays retired"):
        retention.restore(registry, first, "", "tester")
    # The same model again is a version of its own, with its own files.
    again = publish(registry, small())
    assert (again.number, again.identity) == (3, first.identity)
    transfer.verify(registry.store, again)
    assert [notes.state(registry.notes_on(each)).word for each in (first, second, again)] == ["removed", "", ""]


def test_the_same_model_is_not_in_use_twice(local: Registry) -> None:
    first = publish(local, small())
    retire(local, first)
    again = publish(local, small())
    with pytest.raises(ZeroVLError, match="zerovl@1 stays retired: the same model is in use as zerovl@2"):
        retention.restore(local, first, "", "tester")
    retire(local, again)
    retention.restore(local, first, "", "tester")
    assert publish(local, small()).number == 1


def test_what_is_never_retired(local: Registry) -> None:
    versions = [publish(local, small(b"%d" % number)) for number in range(4)]
    for version in versions[:3]:
        promote(local, version)
    notes.add(local.store, versions[3], "tag", "tester", "paper")
    reasons = ("a rollback of production", "it is production", "the tag paper")
    for version, reason in zip(versions[1:], reasons, strict=True):
        with pytest.raises(ZeroVLError, match=f"{version.reference} is not retired: .*{reason}"):
            retire(local, version)
    with pytest.raises(ZeroVLError, match="needs a reason"):
        retire(local, versions[0], " ")
    retire(local, versions[0])
    assert rollback(local, "zerovl", "production", why="", by="").version == 2
    with pytest.raises(RetiredError, match="zerovl@1 was retired"):
        rollback(local, "zerovl", "production", why="", by="")
    retention.restore(local, versions[0], "needed", "tester")
    assert rollback(local, "zerovl", "production", why="", by="").version == 1
    with pytest.raises(ZeroVLError, match="is in use; there is nothing to restore"):
        retention.restore(local, versions[0], "", "tester")


def test_the_policy(local: Registry) -> None:
    versions = [publish(local, small(b"%d" % number)) for number in range(6)]
    for version in (versions[0], versions[1], versions[5]):
        promote(local, version)
    notes.add(local.store, versions[2], "tag", "tester", "paper")
    later = datetime.now(UTC) + timedelta(days=10)

    def expired(**keep: Any) -> list[int]:
        return [version.number for version in retention.expired(local, "zerovl", KeepParams(**keep), later)]

    assert expired() == []
    assert expired(last=1, days=11) == []
    assert expired(last=1, days=9) == [5, 4]
    stays = {each.number: why for each, why in retention.reasons(local, "zerovl", KeepParams(last=1, days=9), later)}
    assert stays == {
        6: "it is production",
        5: "",
        4: "",
        3: "it has the tag paper",
        2: "a rollback of production goes to it",
        1: "it was production",
    }
    young = {why for _, why in retention.reasons(local, "zerovl", KeepParams(last=2, days=11), later)}
    assert {"it is among the last 2", "it is younger than 11 days"} < young
    assert {why for _, why in retention.reasons(local, "zerovl", KeepParams(days=9), later)} > {
        "register.keep.last is 0"
    }
    assert expired(last=2, days=9) == [4]
    assert expired(last=1, days=9, held_alias=False) == [5, 4, 1]
    retire(local, versions[4])
    assert expired(last=2, days=9) == []  # the last two in use


@pytest.mark.parametrize("registry", ["folder", "s3"], indirect=True)
def test_a_reader_whose_files_go_is_told_and_keeps_nothing_half(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, download, gone = publish(registry, small()), type(registry.store).download, []

    def overtaken(self: Any, key: str, path: Path) -> None:
        download(self, key, path)
        if not gone:
            retire(registry, version)
            gone.extend(collect(registry))

    monkeypatch.setattr(type(registry.store), "download", overtaken)
    with pytest.raises(RetiredError, match=r"zerovl@1 was retired .*; its files were removed"):
        transfer.pull(registry.store, version, tmp_path / "out" / "model")
    assert gone == ["config.json", "model.safetensors"]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_holder_that_is_taken_back_by_two_is_no_error(local: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    version, append, notes_on = publish(local, small()), Registry.append, Registry.notes_on

    def overtaken(self: Registry, move: Move) -> Move | None:
        notes.add(self.store, version, "retire", "other", "of no use")
        return append(self, move)

    def beaten(self: Registry, version: Version) -> list[Note]:
        found = notes_on(self, version)
        if notes.state(found).retired:
            notes.add(self.store, version, "restore", "other", "it has an alias")
        return found

    monkeypatch.setattr(Registry, "append", overtaken)
    monkeypatch.setattr(Registry, "notes_on", beaten)
    assert promote(local, version) is not None
    assert notes.state(notes_on(local, version)).word == ""


def test_a_run_that_is_killed_before_it_says_so_is_completed(local: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(local, small(b"in use"))
    version = publish(local, small())
    retire(local, version)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(notes, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(local)
    assert notes.state(local.notes_on(version)).word == "retired"
    assert collect(local) == []
    assert notes.state(local.notes_on(version)).word == "removed"
    local.store.create(keys.mark("zerovl", "broken"), b"{}")
    for use in (lambda: collect(local), lambda: publish(local, small())):
        with pytest.raises(ZeroVLError, match=r"broken\.json: not a list of files to remove; delete it"):
            use()


def test_the_commands(
    local: Registry,
    make_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for content in "abc":
        promote(local, publish(local, make_bundle(content)))

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert cli.main(["registry", "--store", local.store.uri, *words]) == status
        told = capsys.readouterr()
        return told.out if status == 0 else told.err

    assert "it is production; move the alias" in run("retire", "zerovl@3", "--why", "old", status=2)
    assert "zerovl@1 was retired 20" in run("retire", "zerovl@1", "--why", "too old")
    said = run("gc", "zerovl", "--dry-run").splitlines()
    assert re.fullmatch(r"zerovl@1: retired 20\S+, its files stay until 20\S+ \d\d:\d\d UTC", said[0])
    assert said[1:] == ["0 files, 0 B would be removed"]
    day, until = re.findall(r"20\d\d-\d\d-\d\d", said[0])
    assert datetime.fromisoformat(until) - datetime.fromisoformat(day) == timedelta(days=7)
    told = json.loads(run("gc", "zerovl", "--dry-run", "--grace", "0", "--json"))
    assert (told["bytes"], [each["path"] for each in told["files"]]) == (5000, ["model.safetensors"])
    assert "zerovl@1 is in use again" in run("restore", "zerovl@1")
    policy = "register.keep={last: 1, days: 0, held_alias: false}"
    params_file.write(params_file.from_recipe({}, [policy], "test"), "params.yaml")
    would = run("expire", "zerovl", "--dry-run")
    assert "zerovl@1: would be retired\n1 version would be retired; kept are the last 1" in would
    assert json.loads(run("expire", "zerovl", "--json"))["versions"] == [1]
    dry, real = run("gc", "zerovl", "--dry-run", "--grace", "0"), run("gc", "zerovl", "--grace", "0")
    assert dry.replace("would be removed", "removed") == real
    assert "1 file, 5 kB removed" in real
    assert run("gc", "zerovl") == "0 files, 0 B removed\n"  # of what is gone nothing waits
    assert [line.split()[-1] for line in run("list").splitlines()] == ["STATE", "-", "-", "removed"]
    assert "nothing -> version 1 (removed since)" in run("history", "zerovl@production")
    assert json.loads(run("show", "zerovl@1", "--json"))["state"] == "removed"
    assert "State:      zerovl@1 was retired" in run("show", "zerovl@1")
    for words in (("pull", "zerovl@1"), ("verify", "zerovl@1"), ("promote", "zerovl@1", "staging")):
        assert "its files were removed" in run(*words, status=2)
    assert "there is no zerowl; the store has zerovl" in run("gc", "zerowl", status=2)
    for days in ("-1", "inf", "nan"):
        assert "expected a number of days, 0 to 36,500" in run("gc", "zerovl", "--grace", days, status=2)
