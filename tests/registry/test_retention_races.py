"""Two works on a registry, each stopped once at every place: no version in use loses a file, none retired is held."""

from __future__ import annotations

import itertools
import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.interleavings import count_steps, interleave, orders
from tests.support.memory_store import MemoryStore
from tests.support.registries import publish
from tests.support.retirement import collect, retire, small
from zerovl.commands import registry_notes
from zerovl.errors import ZeroVLError
from zerovl.registry import blobs, cache, keys, notes, retention, transfer
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.registry.stores.base import Store
from zerovl.release import promote as promoting

pytestmark = pytest.mark.usefixtures("registry_environment", "unchecked", "read_in_order")
Act = Callable[[Store], Any]


def retired_once() -> MemoryStore:
    """Version 1 is in use, version 2 retired; they share a file."""
    store = MemoryStore("race")
    registry = Registry(store)
    publish(registry, small(b"in use"))
    retire(registry, publish(registry, small()))
    return store


def remove(store: Store) -> list[str]:
    return collect(Registry(store))


def register_again(store: Store) -> Version:
    return publish(Registry(store), small())


def restore(store: Store) -> None:
    registry = Registry(store)
    retention.restore(registry, registry.version("zerovl", 2), "needed", "tester")


def is_whole(store: Store) -> bool:
    """Whether every version that is in use has all its files."""
    registry = Registry(store)
    for version in registry.versions("zerovl"):
        if not notes.state(registry.notes_on(version)).retired:
            try:
                transfer.verify(store, version)
            except ZeroVLError:
                return False
    return True


def outcomes(acts: tuple[Act, Act]) -> Iterator[tuple[MemoryStore, list[Any]]]:
    first, second = (count_steps(retired_once(), act) for act in acts)
    for order in orders(first, second):
        store = retired_once()
        yield store, interleave(store, acts, order)


@pytest.mark.parametrize("acts", [(remove, register_again), (register_again, remove)])
def test_a_publisher_beside_a_removal_ends_with_all_files(acts: tuple[Act, Act]) -> None:
    copies = 0
    for store, results in outcomes(acts):
        assert not [result for result in results if isinstance(result, Exception)]
        assert is_whole(store)
        assert not store.keys(keys.marks("zerovl"))
        copies += any("." in key.rpartition("/")[2] for key in store.keys(keys.blobs("zerovl")))
    assert copies  # in some orders the place was marked, and the file went to a further one


def test_without_marks_the_same_orders_would_lose_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "marked_keys", lambda store, name: frozenset())
    assert not all(is_whole(store) for store, _ in outcomes((remove, register_again)))


@pytest.mark.parametrize("acts", [(remove, restore), (restore, remove)])
def test_restoring_beside_a_removal_ends_whole_or_retired(acts: tuple[Act, Act]) -> None:
    words = set()
    for store, _ in outcomes(acts):
        assert is_whole(store)
        words.add(notes.state(notes.of_version(store, "zerovl", 2)).word)
    assert words >= {"", "removed"}


def test_an_alias_never_ends_with_a_retired_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "held_as_stored", lambda store, version: nullcontext(Path()))

    def give(store: Store) -> Any:
        registry = Registry(store)
        return promoting.promote(registry, registry.version("zerovl", 1), "staging", why="", by="", after=0)

    def take(store: Store) -> None:
        registry = Registry(store)
        retire(registry, registry.version("zerovl", 1))

    ends = set()
    for store, _ in itertools.chain(outcomes((give, take)), outcomes((take, give))):
        word = notes.state(notes.of_version(store, "zerovl", 1)).word
        held = Registry(store).current("zerovl", "staging") is not None
        assert held == (word == "")
        ends.add(held)
    assert ends == {True, False}


def test_a_tag_never_ends_with_a_retired_version() -> None:
    def give(store: Store) -> None:
        registry_notes.ACTIONS["tag"](Registry(store), "zerovl@1", Namespace(tag="paper", json=False))

    def take(store: Store) -> None:
        registry = Registry(store)
        retire(registry, registry.version("zerovl", 1))

    ends = set()
    for store, _ in itertools.chain(outcomes((give, take)), outcomes((take, give))):
        state = notes.state(notes.of_version(store, "zerovl", 1))
        assert bool(state.tags) == (state.retired is None)
        ends.add(state.word)
    assert ends == {"", "retired"}


def test_marks_of_a_killed_run_cost_a_copy_and_go_after_days(monkeypatch: pytest.MonkeyPatch) -> None:
    store = retired_once()
    registry = Registry(store)

    def killed(self: MemoryStore, key: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(registry)
    version = publish(registry, small())
    own = keys.blob("zerovl", version.files["model.safetensors"].sha256)
    assert store.keys(own) == [own, f"{own}.1"]
    assert collect(registry) == []  # the model is in use again
    (mark,) = store.keys(keys.marks("zerovl"))
    old = {**json.loads(store.read(mark)), "when": (datetime.now(UTC) - timedelta(days=8)).isoformat()}
    store.delete(mark)
    store.create(mark, json.dumps(old).encode())
    assert collect(registry) == []
    assert not store.keys(keys.marks("zerovl"))
