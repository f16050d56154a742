"""What is said of a version after it was published: descriptions, tags, its retirement, files that were withdrawn.

    NAME/notes/<version>/<number>.json    one note, never changed; all of them in their order are what holds today

A version's own record stays as it was written. Whoever reads a version reads its notes too (`Registry.version`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from zerovl.errors import ZeroVLError
from zerovl.registry import keys
from zerovl.registry.records import Note, Replacement, Version, note_from, now
from zerovl.registry.stores.base import Store

_READERS = 8  # notes read at once; each is a round trip


class RetiredError(ZeroVLError):
    """A version is asked for that was retired, or a file that was withdrawn from it."""


@dataclass(frozen=True)
class State:
    """What the notes on a version come to."""

    description: str = ""
    tags: tuple[str, ...] = ()
    retired: Note | None = None  # who, when and why
    collected: Note | None = None  # since when its files are gone
    withdrawals: tuple[Note, ...] = ()

    @property
    def word(self) -> str:
        """One word for lists: "retired", "removed" where the files are gone too, "" for a version in use."""
        return "removed" if self.collected else "retired" if self.retired else ""


def state(notes: Sequence[Note]) -> State:
    """Return what the notes on one version, in their order, come to."""
    found = State()
    for note in notes:
        if note.action == "describe":
            found = replace(found, description=note.text)
        elif note.action == "tag":
            found = replace(found, tags=tuple(sorted({*found.tags, note.text})))
        elif note.action == "untag":
            found = replace(found, tags=tuple(tag for tag in found.tags if tag != note.text))
        elif note.action == "retire":
            found = replace(found, retired=note)
        elif note.action == "restore":
            found = replace(found, retired=None, collected=None)
        elif note.action == "collect":
            found = replace(found, collected=note)
        elif note.action == "withdraw":
            found = replace(found, withdrawals=(*found.withdrawals, note))
    return found


def as_it_is_now(version: Version, notes: Sequence[Note]) -> Version:
    """Return a version with the files that it has today: one that was withdrawn has another in its place."""
    files = dict(version.files)
    for note in notes:
        files |= {path: each.file for path, each in note.replaced.items() if path in files}
    return replace(version, files=files)


def require_in_use(version: Version, notes: Sequence[Note]) -> None:
    """Raise `RetiredError`, with who retired a version, when and why, where someone has."""
    retired = state(notes).retired
    if retired:
        raise RetiredError(sentence(version.reference, state(notes)) + "; use another version")


def sentence(reference: str, its: State) -> str:
    """Return who retired a version, when and why."""
    retired, collected = its.retired, its.collected
    if retired is None:
        return f"{reference} is in use"
    gone = f"; its files were removed {_minute(collected)}" if collected else ""
    return f"{reference} was retired {_minute(retired)} by {retired.by}: {retired.text}{gone}"


def of_version(store: Store, name: str, version: int) -> list[Note]:
    """Return the notes on a version, the first one first."""
    found = keys.numbers(store.keys(keys.notes(name, version)))
    return [_read(store, keys.note(name, version, number)) for number in found]


def of_all(store: Store, name: str) -> dict[int, list[Note]]:
    """Return the notes on all versions of a model that have any, by number, the first one first."""
    found: dict[int, list[Note]] = {}
    records = [key for key in store.keys(keys.notes(name)) if keys.numbers([key])]
    if not records:
        return found
    with ThreadPoolExecutor(_READERS) as executor:
        for note in executor.map(lambda key: _read(store, key), records):
            found.setdefault(note.version, []).append(note)
    return {version: sorted(notes, key=lambda note: note.number) for version, notes in found.items()}


def add(
    store: Store, version: Version, action: str, by: str, text: str, replaced: Mapping[str, Replacement] | None = None
) -> Note:
    """Add a note to a version, behind all that are there."""
    taken = keys.numbers(store.keys(keys.notes(version.name, version.number)))
    number = taken[-1] + 1 if taken else 1
    while True:
        note = Note(version.name, version.number, number, action, now(), by, text, dict(replaced or {}))
        key, data = keys.note(version.name, version.number, number), note.to_bytes()
        # A retried write whose first answer was lost finds its own note there.
        if store.create(key, data) or store.read(key) == data:
            return note
        number += 1


def _read(store: Store, key: str) -> Note:
    return note_from(store.read(key), f"{store.describe()}: {key}")


def _minute(note: Note) -> str:
    return f"{note.when[:16].replace('T', ' ')} UTC"
