"""Versions and aliases of models in a store.

    NAME/blobs/sha256/<digest>            a file of a release, named by its content
    NAME/versions/<number>.json           a release: files, metrics, provenance, verdict; written last
    NAME/aliases/<alias>/<number>.json    one move of an alias; the highest number is current
    NAME/notes/<version>/<number>.json    what is said of a version later (`registry.notes`)

All of them are only ever created, never changed. A version is there when its record is, and by then
all its blobs are; an upload that dies before leaves blobs that the next one finds and uses. Only the blobs of
versions that were retired are removed (`registry.collection`).

One identity gives one version in use, also when two publish it at the same time: numbers are taken in
sequence, and whoever finds a number taken reads who has it before trying the next. So of two equal
releases the later one meets the earlier one and returns it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from zerovl.errors import ZeroVLError
from zerovl.registry import blobs, keys, notes, release_files
from zerovl.registry.records import Move, Note, Version, check_alias, check_name, move_from, now, version_from
from zerovl.registry.stores.base import MissingKeyError, Store

_READERS = 8  # records read at once; each is a round trip
T = TypeVar("T")


class Registry:
    """The records of a store: versions, and the moves of aliases.

    All methods raise `ZeroVLError` for what does not exist, naming what does. Files are fetched and compared by
    `registry.transfer`; `release.promote` checks a release and then moves an alias.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    # -- versions

    def publish(
        self,
        name: str,
        files: Mapping[str, Path | bytes],
        *,
        metrics: dict[str, Any],
        provenance: dict[str, Any],
        by: str,
        verdict: dict[str, Any] | None = None,
    ) -> Version:
        """Store a release; returns its version, or the one in use that has held the same model and metrics before.

        Args:
            name: of the model.
            files: name in the release (POSIX path) -> file or bytes.
            metrics, provenance, verdict: kept in the version's record, to be read without the files.
            by: the person or run that publishes.
        """
        check_name(name, "model name")
        release_files.check_names(files, f"release of {name}")
        described = {path: release_files.describe_file(source) for path, source in sorted(files.items())}
        identity = release_files.identity(described)
        numbers, said = self.numbers(name), self.notes(name)
        for version in self.versions(name, numbers):
            if version.identity == identity and not notes.state(said.get(version.number, [])).retired:
                # Registering again also restores a blob that was removed as damaged.
                its = {path: info for path, info in described.items() if version.files.get(path) == info}
                blobs.keep(self.store, name, its, files)
                return version
        blobs.keep(self.store, name, described, files)
        number = numbers[-1] + 1 if numbers else 1
        while True:
            version = Version(name, number, identity, now(), by, described, metrics, provenance, verdict)
            if self.store.create(keys.version(name, number), version.to_bytes()):
                blobs.keep(self.store, name, described, files)  # what was being removed until the version was there
                return version
            taken = self.version(name, number)
            if taken.identity == identity:
                return taken
            number += 1

    def names(self) -> list[str]:
        """Return the names of all models that have a version."""
        return [name for name in self.store.folders("") if self.numbers(name)]

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of all versions, ascending."""
        return keys.numbers(self.store.keys(keys.versions(name)))

    def version(self, name: str, number: int) -> Version:
        """Return one version by its number, with the files that it has today."""
        return notes.as_it_is_now(self._as_published(name, number), notes.of_version(self.store, name, number))

    def version_in_use(self, name: str, number: int) -> Version:
        """Return one version as `version` does; raises `RetiredError` where it was retired."""
        version, said = self._as_published(name, number), notes.of_version(self.store, name, number)
        notes.require_in_use(version, said)
        return notes.as_it_is_now(version, said)

    def _as_published(self, name: str, number: int) -> Version:
        key = keys.version(check_name(name, "model name"), number)
        try:
            data = self.store.read(key)
        except MissingKeyError:
            raise self._not_found(f"{name}@{number}", name) from None
        return version_from(data, f"{self.store.describe()}: {key}")

    def versions(self, name: str, numbers: list[int] | None = None) -> list[Version]:
        """Return all versions (or those with `numbers`), newest first."""
        numbers = self.numbers(name) if numbers is None else numbers
        found, said = _at_once(lambda number: self._as_published(name, number), numbers[::-1]), self.notes(name)
        return [notes.as_it_is_now(version, said.get(version.number, [])) for version in found]

    def notes(self, name: str) -> dict[int, list[Note]]:
        """Return the notes on all versions that have any, by number, the first one first."""
        return notes.of_all(self.store, check_name(name, "model name"))

    def notes_on(self, version: Version) -> list[Note]:
        """Return the notes on a version, the first one first."""
        return notes.of_version(self.store, version.name, version.number)

    def resolve(self, reference: str) -> Version:
        """Return the version that `NAME@NUMBER` or `NAME@ALIAS` names."""
        name, label = split_reference(reference)
        number = int(label) if label.isdecimal() else self.last_move(name, label).version
        return self.version(name, number)

    # -- aliases

    def aliases(self, name: str) -> dict[str, Move]:
        """Return the current move of each alias."""
        found = {alias: self.current(name, alias) for alias in self.store.folders(keys.aliases(name))}
        return {alias: move for alias, move in found.items() if move}

    def current(self, name: str, alias: str) -> Move | None:
        """Return the last move of an alias; None where it has never been given."""
        moves = self._move_numbers(name, alias)
        return self.move(name, alias, moves[-1]) if moves else None

    def last_move(self, name: str, alias: str) -> Move:
        """Return the last move of an alias that has been given."""
        move = self.current(name, alias)
        if move is None:
            raise self._not_found(f"{name}@{alias}", name)
        return move

    def history(self, name: str, alias: str) -> list[Move]:
        """Return all moves, newest first."""
        return _at_once(lambda number: self.move(name, alias, number), self._move_numbers(name, alias)[::-1])

    def holder_before(self, name: str, alias: str) -> tuple[Version, int]:
        """Return the version that a rollback gives the alias back to, and the number of the current move.

        Rolling back again goes further back. Raises `ZeroVLError` where the alias has never moved, or had one holder.
        """
        history = self.history(name, alias)
        if not history:
            raise self._not_found(f"{name}@{alias}", name)
        holders = _chain(history)
        if len(holders) < 2:
            raise ZeroVLError(f"{name}@{alias}: version {holders[-1]} had no one before it; promote a version instead")
        return self.version(name, holders[-2]), history[0].number

    def holders(self, name: str, alias: str) -> list[int]:
        """Return the versions that a chain of rollbacks would go through, the current one last; each may come twice."""
        return _chain(self.history(name, alias))

    def append(self, move: Move) -> Move | None:
        """Write a move, numbered one above the move that the decision rests on.

        Returns:
            The move; or None where someone else took its number: look at the new holder and decide again.
        """
        check_name(move.name, "model name")
        key, data = keys.move(move.name, check_alias(move.alias), move.number), move.to_bytes()
        # A retried write whose first answer was lost finds its own record there.
        return move if self.store.create(key, data) or self.store.read(key) == data else None

    def move(self, name: str, alias: str, number: int) -> Move:
        """Return one move of an alias, which is there."""
        key = keys.move(name, alias, number)
        return move_from(self.store.read(key), f"{self.store.describe()}: {key}")

    def _move_numbers(self, name: str, alias: str) -> list[int]:
        check_name(name, "model name")
        return keys.numbers(self.store.keys(keys.moves(name, check_name(alias, "alias"))))

    def _not_found(self, reference: str, name: str) -> ZeroVLError:
        numbers = self.numbers(name)
        where = f"{self.store.describe()}: there is no {reference}"
        if not numbers:
            names = ", ".join(self.names()) or "no models at all"
            return ZeroVLError(f"{where}; the store has {names}")
        versions = ", ".join(map(str, numbers[-20:]))
        aliases = ", ".join(sorted(self.aliases(name))) or "none"
        return ZeroVLError(f"{where}; {name} has the versions {versions} and the aliases: {aliases}")


def split_reference(reference: str) -> tuple[str, str]:
    """Return model name and label, a version number or an alias, of `NAME@LABEL`; raises `ZeroVLError` for others."""
    name, separator, label = reference.rpartition("@")
    if not separator or not label:
        raise ZeroVLError(f"{reference!r}: expected NAME@ALIAS or NAME@VERSION, as in zerovl@production or zerovl@3")
    return check_name(name, "model name"), check_name(label, "alias")


def _chain(history: list[Move]) -> list[int]:
    holders: list[int] = []
    for move in reversed(history):
        if move.action == "rollback":
            holders.pop()
        else:
            holders.append(move.version)
    return holders


def _at_once(read: Callable[[int], T], numbers: list[int]) -> list[T]:
    if len(numbers) < 2:
        return [read(number) for number in numbers]
    with ThreadPoolExecutor(_READERS) as executor:
        return list(executor.map(read, numbers))
