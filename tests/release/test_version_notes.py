"""What is said of versions after they were published, and finding versions by it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.registries import Bundle, publish
from zerovl import cli
from zerovl.errors import ZeroVLError
from zerovl.registry import notes
from zerovl.registry.registry import Registry
from zerovl.release import version_filter

pytestmark = pytest.mark.usefixtures("registry_environment")


def published(registry: Registry, make_bundle: Bundle) -> None:
    """Two versions: RSUM 300 with a zero-shot score, and 500 without."""
    photos = {"photos": {"t2i_r1": 30.0}}
    first = {
        "mean": {"rsum": 300.0},
        "overall": {"rsum": 200.0},
        "sources": photos,
        "evaluators": {"zeroshot": {"overall": {"top1": 12.5}}},
    }
    publish(registry, make_bundle("a"), metrics=first)
    publish(registry, make_bundle("b"), metrics={"mean": {"rsum": 500.0}, "sources": {}})


def test_notes_are_added_and_none_is_lost(registry: Registry, make_bundle: Bundle) -> None:
    version = publish(registry, make_bundle("a"))
    add = lambda action, text: notes.add(registry.store, version, action, "tester", text)  # noqa: E731
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda number: add("tag", f"tag-{number}"), range(8)))
    add("untag", "tag-3")
    add("describe", "first words")
    add("describe", "better words")
    said = registry.notes_on(version)
    assert [note.number for note in said] == list(range(1, 12))
    assert registry.notes("zerovl") == {1: said}
    state = notes.state(said)
    assert state.description == "better words"
    assert set(state.tags) == {f"tag-{number}" for number in range(8)} - {"tag-3"}
    assert registry.version("zerovl", 1) == version  # what was published stays as it was


def test_a_broken_note_is_named(local: Registry, make_bundle: Bundle) -> None:
    publish(local, make_bundle("a"))
    local.store.create("zerovl/notes/1/1.json", b'{"name": "zerovl"}')
    with pytest.raises(ZeroVLError, match=r"zerovl/notes/1/1.json: this is not a record"):
        local.version("zerovl", 1)


@pytest.mark.parametrize(
    ("wheres", "tags", "numbers"),
    [
        (["rsum>300"], [], [2]),
        (["rsum >= 300"], [], [2, 1]),
        ([" RSUM==300 "], [], [1]),
        (["T2I_R1@photos < 31"], [], [1]),
        (["retrieval.rsum<500", "zeroshot.top1=12.5"], [], [1]),
        (["t2i_r1@photos<=30"], [], [1]),
        ([], ["good"], [2]),
        (["rsum<400"], ["good"], []),
    ],
)
def test_versions_are_found(
    local: Registry, make_bundle: Bundle, wheres: list[str], tags: list[str], numbers: list[int]
) -> None:
    published(local, make_bundle)
    notes.add(local.store, local.version("zerovl", 2), "tag", "tester", "good")
    wanted = version_filter.parse(wheres, tags)
    said = local.notes("zerovl")
    found = [each for each in local.versions("zerovl") if wanted(each, notes.state(said.get(each.number, [])))]
    assert [version.number for version in found] == numbers


@pytest.mark.parametrize("text", ["rsum", "rsum>", ">5", "rsum>much", "rsum!5", "a b>3", "", "rsum>nan", "rsum<inf"])
def test_a_condition_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ZeroVLError, match="expected METRIC, one of > >= < <= =, and a number, as in 'rsum>500'"):
        version_filter.parse([text], [])


def test_the_commands(local: Registry, make_bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    published(local, make_bundle)

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert cli.main(["registry", "--store", local.store.uri, *words]) == status
        told = capsys.readouterr()
        return told.out if status == 0 else told.err

    def told(*words: str) -> Any:
        return json.loads(run(*words, "--json"))

    assert run("tag", "zerovl@2", "paper") == "zerovl@2: tags: paper; description: none\n"
    assert "nothing to change" in run("tag", "zerovl@2", "paper")
    assert told("tag", "zerovl@2", "good")["number"] == 2
    assert told("untag", "zerovl@2", "good")["added"] is True
    assert told("untag", "zerovl@2", "good") == {"added": False}
    assert "description: of the paper" in run("describe", "zerovl@2", "of the paper")
    for tag in ("a b", "a,b", ".2", ""):
        assert f"tag {tag!r}: use letters, digits" in run("tag", "zerovl@2", tag, status=2)
    assert told("tag", "zerovl@1", "v1.2-rc_1")["text"] == "v1.2-rc_1"
    assert [row["version"] for row in told("list", "--tag", "v1.2-rc_1")] == [1]
    assert told("untag", "zerovl@1", "v1.2-rc_1")["added"] is True
    assert "there is no zerovl@7" in run("tag", "zerovl@7", "paper", status=2)
    head, second, first = run("list").splitlines()
    assert (head.split()[-2:], second.split()[-2:], first.split()[-2:]) == (
        ["TAGS", "STATE"],
        ["paper", "-"],
        ["-"] * 2,
    )
    assert [row["version"] for row in told("list", "--where", "rsum>=300", "--tag", "paper")] == [2]
    assert told("list", "--tag", "paper")[0]["description"] == "of the paper"
    assert "has all that --where and --tag ask for" in run("list", "--where", "rsum>600")
    assert told("list", "--where", "rsum>600") == []
    assert "no version has such a metric; they have retrieval.rsum" in run("list", "--where", "rsun>3", status=2)
    assert "has this metric of web; they have it of photos\n" in run("list", "--where", "t2i_r1@web > 3", status=2)
    shown = run("show", "zerovl@2")
    assert "About:      of the paper\nTags:       paper\n" in shown
    record = told("show", "zerovl@2")
    assert (record["tags"], record["state"], len(record["notes"])) == (["paper"], "in use", 4)
    assert told("verify", "zerovl@2")["digests"] == "right"
    assert told("pull", "zerovl@2", "--out", str(tmp_path / "out"))["folder"] == str(tmp_path / "out")
