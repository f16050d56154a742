"""Removing files that no version in use has: those of retired versions after a while, and withdrawn ones at once.

Publishers go on meanwhile, and share files by content with what is removed. Neither waits for the other:

    a run      1 marks the places that it may remove    2 reads all versions and notes
               3 removes what is still nobody's         4 takes its marks away
    publisher  1 stores files    2 writes the version    3 reads the marks; for each file makes sure of a place without
               one: the file is there, is stored again, or is stored at a further place (`blobs.keep`)

A version written before the run's second step is seen there, and its files stay. One that is written later reads marks
after that: the run's are there, so its places are not relied on; or they are gone, so what was removed is seen to be
missing. A place that was relied on without a mark can be marked afterwards only, by a run whose second step then sees
the version. Taking a version back into use is a publisher's steps 2 and 3. No clock is in this; a run that is killed
leaves its marks, which cost others a second copy, until a later run takes them for dead.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from zerovl.registry import blobs, keys, notes, retention
from zerovl.registry.records import Note, Version, now
from zerovl.registry.registry import Registry
from zerovl.registry.stores.base import MissingKeyError, Store

GRACE_DAYS = 7.0  # between a version's retirement and the removal of its files
WITHDRAWN_ALONE = ""  # as the time before which versions were retired: of none the files are removed
_DEAD_MARKS = timedelta(days=7)


@dataclass(frozen=True)
class Garbage:
    """A place in a store that no version in use needs."""

    key: str
    path: str  # the file's name in the release
    size: int  # bytes
    versions: tuple[int, ...]  # that named it


def grace(days: float) -> str:
    """Return since when a version must have been retired for its files to go: UTC, ISO 8601."""
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")


def garbage(registry: Registry, name: str, before: str) -> list[Garbage]:
    """Return what a run would remove: of versions retired before a time, and what was withdrawn from any.

    Reads nothing but records and names, and changes nothing.
    """
    said = registry.notes(name)
    versions = registry.versions(name)
    kept = retention.protected(registry, name)
    dead = {version.number for version in versions if _is_dead(said.get(version.number, []), before)} - kept.keys()
    needed = {info.sha256 for each in versions if each.number not in dead for info in each.files.values()}
    wanted = {digest: each for digest, each in _named(versions, said, dead).items() if digest not in needed}
    return [
        Garbage(key, *wanted[keys.digest(key)])
        for key in registry.store.keys(keys.blobs(name))
        if keys.digest(key) in wanted
    ]


def waiting(registry: Registry, name: str, before: str) -> dict[int, Note]:
    """Return the retirement of each version, by number, whose files are there yet, as it was not before a time."""
    states = {number: notes.state(said) for number, said in sorted(registry.notes(name).items())}
    retired = {number: its.retired for number, its in states.items() if not its.collected}
    return {number: note for number, note in retired.items() if note is not None and note.when >= before}


def collect(registry: Registry, name: str, before: str, by: str) -> list[Garbage]:
    """Remove what `garbage` finds, safe against whoever publishes or restores meanwhile; returns what was removed."""
    store = registry.store
    _drop_dead_marks(store, name)
    removed = []
    if marked := {each.key for each in garbage(registry, name, before)}:
        mark = keys.mark(name, uuid.uuid4().hex)
        store.create(mark, json.dumps({"keys": sorted(marked), "when": now(), "by": by}, indent=2).encode())
        removed = [each for each in garbage(registry, name, before) if each.key in marked]
        for each in removed:
            store.delete(each.key)
        store.delete(mark)  # not after an error: nobody knows then whether a removal is still on its way
    _note_removals(registry, name, by)
    return removed


def _is_dead(said: Sequence[Note], before: str) -> bool:
    retired = notes.state(said).retired
    return retired is not None and retired.when < before


def _named(
    versions: Sequence[Version], said: Mapping[int, Sequence[Note]], dead: set[int]
) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    """Name, bytes and versions of each file, by digest, of a dead version or withdrawn from any."""
    found: dict[str, tuple[str, int, tuple[int, ...]]] = {}
    for version in versions:
        withdrawn = notes.state(said.get(version.number, [])).withdrawals
        files = [
            (each.withdrawn, path, each.withdrawn_size) for note in withdrawn for path, each in note.replaced.items()
        ]
        if version.number in dead:
            files += [(info.sha256, path, info.size) for path, info in version.files.items()]
        for digest, path, size in files:
            numbers = found[digest][2] if digest in found else ()
            found[digest] = (path, size, (*numbers, version.number))
    return found


def _note_removals(registry: Registry, name: str, by: str) -> None:
    """Say of each retired version that lacks a file that its files are gone, also where an earlier run was killed."""
    waiting = [number for number, said in registry.notes(name).items() if notes.state(said).word == "retired"]
    if not waiting:
        return
    versions = registry.versions(name, waiting)
    left = {keys.digest(key) for key in registry.store.keys(keys.blobs(name))}
    for version in versions:
        if any(info.sha256 not in left for info in version.files.values()):
            notes.add(registry.store, version, "collect", by, "its files were removed")


def _drop_dead_marks(store: Store, name: str) -> None:
    """Take away marks of runs that were killed: no run takes days."""
    limit = (datetime.now(UTC) - _DEAD_MARKS).isoformat()
    for key in store.keys(keys.marks(name)):
        with suppress(MissingKeyError):
            if blobs.read_mark(store, key)[1] < limit:
                store.delete(key)
