"""Alias moves: checked before they are made, each kept once, decided again where someone else was faster."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.registries import Bundle, damage, promote, publish
from zerovl.errors import ZeroVLError
from zerovl.registry import cache
from zerovl.registry.records import Move, Version
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.registry.transfer import DamagedError
from zerovl.release import promote as promoting
from zerovl.release.promote import rollback

pytestmark = pytest.mark.usefixtures("registry_environment", "unchecked")


def test_history_and_rollback(registry: Registry, make_bundle: Bundle) -> None:
    versions = [publish(registry, make_bundle(content)) for content in "abc"]
    for version in versions:
        assert promote(registry, version)
    again = promote(registry, versions[2])
    assert again is not None
    assert again.number == 3  # it has the alias already
    assert registry.resolve("zerovl@production") == versions[2]
    assert rollback(registry, "zerovl", "production", why="bad", by="me").version == 2
    assert rollback(registry, "zerovl", "production", why="worse", by="me").version == 1
    with pytest.raises(ZeroVLError, match="version 1 had no one before it"):
        rollback(registry, "zerovl", "production", why="", by="me")
    promote(registry, versions[2])
    assert rollback(registry, "zerovl", "production", why="", by="me").version == 1
    history = registry.history("zerovl", "production")
    assert [move.number for move in history] == [7, 6, 5, 4, 3, 2, 1]
    assert [move.version for move in history] == [1, 3, 1, 2, 3, 2, 1]
    assert [move.action for move in history[2:5]] == ["rollback", "rollback", "promote"]
    assert (history[3].why, history[3].by) == ("bad", "me")
    assert history[6].when < history[0].when
    assert registry.aliases("zerovl")["production"] == history[0]
    assert registry.resolve("zerovl@production") == versions[0]


def test_ten_moves_are_in_the_order_of_numbers(local: Registry, make_bundle: Bundle) -> None:
    versions = [publish(local, make_bundle(content)) for content in "ab"]
    for index in range(11):
        promote(local, versions[index % 2])
    assert local.resolve("zerovl@production") == versions[0]
    assert [move.number for move in local.history("zerovl", "production")] == list(range(11, 0, -1))


def test_promotion_rests_on_the_holder_that_was_seen(local: Registry, make_bundle: Bundle) -> None:
    first, second, third = (publish(local, make_bundle(content)) for content in "abc")
    promote(local, first)
    promote(local, second)
    assert promoting.promote(local, third, "production", why="", by="", after=1) is None
    assert local.resolve("zerovl@production") == second


def test_promotion_checks_what_lies_in_the_store(
    registry: Registry, make_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(registry, make_bundle("a"))
    seen: list[bytes] = []

    def look(folder: Path) -> str:
        seen.append((folder / "model.safetensors").read_bytes())
        return "looks well"

    monkeypatch.setattr(promoting, "check_release", look)
    move = promote(registry, version)
    assert move is not None
    assert (move.check, seen) == ("looks well", [b"a" * 5000])
    assert registry.history("zerovl", "production") == [move]


def test_a_failing_check_leaves_the_alias_where_it_is(
    local: Registry, make_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (publish(local, make_bundle(content)) for content in "abc")
    promote(local, first)
    promote(local, second)

    def refuse(folder: Path) -> str:
        raise ZeroVLError("it does not score as when it was made")

    monkeypatch.setattr(promoting, "check_release", refuse)
    with pytest.raises(ZeroVLError, match=r"zerovl@3 stays without the alias: it does not score"):
        promote(local, third)
    with pytest.raises(ZeroVLError, match=r"zerovl@1 stays without the alias: it does not score"):
        rollback(local, "zerovl", "production", why="", by="")
    assert local.resolve("zerovl@production") == second
    assert len(local.history("zerovl", "production")) == 2


def test_a_whole_copy_in_the_cache_does_not_hide_damage_in_the_store(local: Registry, make_bundle: Bundle) -> None:
    version = publish(local, make_bundle("a"))
    cache.cached(local.store, version)
    damage(local, version, "model.safetensors")
    with pytest.raises(DamagedError, match=r"model.safetensors of zerovl@1 is damaged"):
        promote(local, version)
    assert local.current("zerovl", "production") is None


def test_a_move_without_a_check_is_read(local: Registry, make_bundle: Bundle) -> None:
    """As registries of before the check wrote them."""
    move = promote(local, publish(local, make_bundle("a")))
    assert move is not None
    record = json.loads(move.to_bytes())
    del record["check"]
    local.store.create("zerovl/aliases/older/1.json", json.dumps({**record, "alias": "older"}).encode())
    assert local.resolve("zerovl@older").number == 1


def _promote_until_moved(arguments: tuple[str, int]) -> Move:
    """Look at the holder, decide, move; again where someone else moved the alias meanwhile."""
    uri, number = arguments
    registry = Registry(open_store(uri))
    while not (move := promote(registry, registry.version("zerovl", number))):
        pass
    return move


def test_a_race_of_ten_promoters_is_one_history(moto_bucket: str) -> None:
    """As many as make the last move's number longer than the first's: in the order of names it would come second."""
    registry = Registry(open_store(f"s3://{moto_bucket}/team"))
    versions = [publish(registry, {"model.safetensors": b"%d" % index, "config.json": b"{}"}) for index in range(10)]
    with ThreadPoolExecutor(10) as executor:
        moves = list(executor.map(_promote_until_moved, [(registry.store.uri, v.number) for v in versions]))
    history = registry.history("zerovl", "production")
    assert [move.number for move in history] == list(range(10, 0, -1))
    assert sorted(moves, key=lambda move: -move.number) == history  # each was told its own move, and none is lost
    assert {move.version for move in history} == {version.number for version in versions}
    assert registry.resolve("zerovl@production").number == history[0].version


def test_of_many_promoters_each_move_is_kept_once(local: Registry, make_bundle: Bundle) -> None:
    versions = [publish(local, make_bundle(content)) for content in "abcdefgh"]
    moves: list[Move | None] = []
    barrier = threading.Barrier(8)

    def act(version: Version) -> None:
        barrier.wait()
        moves.append(promoting.promote(local, version, "production", why="", by="", after=0))

    threads = [threading.Thread(target=act, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [move for move in moves if move]
    assert local.history("zerovl", "production") == won
    assert len(won) == 1


def test_a_rollback_overtaken_by_a_promotion_is_decided_again(
    local: Registry, make_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (publish(local, make_bundle(content)) for content in "abc")
    promote(local, first)
    promote(local, second)
    looks: list[bytes] = []

    def overtaken(folder: Path) -> str:
        looks.append((folder / "model.safetensors").read_bytes()[:1])
        if len(looks) == 1:
            promote(local, third)
        return ""

    monkeypatch.setattr(promoting, "check_release", overtaken)
    assert rollback(local, "zerovl", "production", why="", by="").version == second.number
    assert looks == [b"a", b"c", b"b"]  # the holder before, the one that overtakes, and then who held before that


def test_damage_in_the_store_keeps_the_alias_where_it_is(local: Registry, make_bundle: Bundle) -> None:
    version = publish(local, make_bundle("a"))
    damage(local, version, "model.safetensors")
    with pytest.raises(DamagedError, match=r"model.safetensors of zerovl@1 is damaged: expected sha256 \w{64}, found"):
        promote(local, version)
    assert local.current("zerovl", "production") is None


def test_names_are_checked_before_anything_is_fetched(
    local: Registry, make_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(local, make_bundle("a"))
    monkeypatch.setattr(promoting, "check_release", lambda folder: pytest.fail("the release was fetched"))
    with pytest.raises(ZeroVLError, match="would look like a version"):
        promote(local, version, "3")
    with pytest.raises(ZeroVLError, match="use letters"):
        promote(local, version, "../x")
    with pytest.raises(ZeroVLError, match="use letters"):
        promote(local, replace(version, name="a/b"))


def test_an_alias_that_was_never_given_cannot_be_rolled_back(registry: Registry, make_bundle: Bundle) -> None:
    promote(registry, publish(registry, make_bundle("a")), "staging")
    with pytest.raises(ZeroVLError, match="no zerovl@nothing; zerovl has the versions 1 and the aliases: staging"):
        rollback(registry, "zerovl", "nothing", why="", by="")
