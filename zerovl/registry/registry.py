"""Versions and aliases of models in a store.

    NAME/blobs/sha256/<digest>            a file of a release, named by its content
    NAME/versions/<number>.json           a release: files, metrics, provenance, verdict; written last
    NAME/aliases/<alias>/<number>.json    one move of an alias; the highest number is current

All three are only ever created, never changed. A version is there when its record is, and by then
all its blobs are; an upload that dies before leaves blobs that the next one finds and uses.

One identity gives one version, also when two publish it at the same time: numbers are taken in
sequence, and whoever finds a number taken reads who has it before trying the next. So of two equal
releases the later one meets the earlier one and returns it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from zerovl.errors import ZeroVLError
from zerovl.files import locked, sync_folder
from zerovl.registry import keys, release_files
from zerovl.registry.cache import aside_folder, cache_folder, held_as_stored, writing
from zerovl.registry.records import Move, Version, check_name, move_from, now, version_from
from zerovl.registry.stores.base import MissingKeyError, Store

_READERS = 8  # records read at once; each is a round trip
T = TypeVar("T")
Check = Callable[[Path], str]  # the folder of a fetched release -> a sentence on it; raises `ZeroVLError`


class DamagedError(ZeroVLError):
    """A file of a release does not have the digest that its version says."""


class Registry:
    """All methods raise `ZeroVLError` for what does not exist, naming what does."""

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
        """Store a release; returns its version, or the one that has held the same model and metrics before.

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
        # Before the search, so that registering again also restores a blob that was removed as damaged.
        for path, info in described.items():
            self.store.create(keys.blob(name, info.sha256), files[path])
        numbers = self.numbers(name)
        for version in self.versions(name, numbers):
            if version.identity == identity:
                return version
        number = numbers[-1] + 1 if numbers else 1
        while True:
            version = Version(name, number, identity, now(), by, described, metrics, provenance, verdict)
            if self.store.create(keys.version(name, number), version.to_bytes()):
                return version
            taken = self.version(name, number)
            if taken.identity == identity:
                return taken
            number += 1

    def names(self) -> list[str]:
        return [name for name in self.store.folders("") if self.numbers(name)]

    def numbers(self, name: str) -> list[int]:
        """Numbers of all versions, ascending."""
        return keys.numbers(self.store.keys(keys.versions(name)))

    def version(self, name: str, number: int) -> Version:
        key = keys.version(check_name(name, "model name"), number)
        try:
            data = self.store.read(key)
        except MissingKeyError:
            raise self._not_found(f"{name}@{number}", name) from None
        return version_from(data, f"{self.store.describe()}: {key}")

    def versions(self, name: str, numbers: list[int] | None = None) -> list[Version]:
        """All versions (or those with `numbers`), newest first."""
        numbers = self.numbers(name) if numbers is None else numbers
        return _at_once(lambda number: self.version(name, number), numbers[::-1])

    def resolve(self, reference: str) -> Version:
        """The version that `NAME@NUMBER` or `NAME@ALIAS` names."""
        name, label = split_reference(reference)
        if label.isdecimal():
            return self.version(name, int(label))
        move = self.current(name, label)
        if move is None:
            raise self._not_found(reference, name)
        return self.version(name, move.version)

    def verify(self, version: Version) -> None:
        """Read every byte of a version in the store; raises `DamagedError` naming all files that differ."""
        problems = []
        for path, info in version.files.items():
            key, digest = keys.blob(version.name, info.sha256), hashlib.sha256()
            try:
                for block in self.store.blocks(key):
                    digest.update(block)
            except MissingKeyError:
                problems.append(self._damage(version, path, "nothing"))
                continue
            if digest.hexdigest() != info.sha256:
                problems.append(self._damage(version, path, digest.hexdigest()))
        if problems:
            raise DamagedError("\n".join(problems))

    def pull(self, version: Version, folder: Path) -> None:
        """Fetch a version into a folder that is empty or not there yet; every digest is checked.

        The files arrive in a hidden folder beside it, which is renamed when all are whole.
        """
        folder = folder.absolute()
        with writing(version, folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.parent) as alone:
                if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                    raise ZeroVLError(f"{folder}: exists and is not empty; name another folder, or remove it")
                aside = aside_folder(folder, version, alone)
                self.fill(version, aside)
                os.rename(aside, folder)
            sync_folder(folder.parent)

    def fetch_file(self, version: Version, path: str, target: Path) -> None:
        """Fetch one file of a version to `target`, its digest checked; goes on where it was cut off.

        Raises:
            DamagedError: the file is not what the version says, or is not in the store.
        """
        info = version.files[path]
        if target.exists() and release_files.describe_file(target) == info:
            return  # whole since an earlier, interrupted pull
        # Twice: what an interrupted pull left, and the first download goes on with, may be what is damaged.
        for _ in range(2):
            try:
                self.store.download(keys.blob(version.name, info.sha256), target)
            except MissingKeyError:
                raise DamagedError(self._damage(version, path, "nothing")) from None
            found = release_files.describe_file(target)
            if found == info:
                return
            target.unlink()
        raise DamagedError(self._damage(version, path, found.sha256))

    def fill(self, version: Version, aside: Path) -> None:
        """Fetch the files of a version into `aside`, for the caller to rename; goes on where it was cut off.

        What is damaged, or does not fit the disk, is removed again.
        """
        try:
            for path in version.files:
                self.fetch_file(version, path, aside / path)
            for found in [found for found in aside.rglob("*") if found.is_file()]:
                if found.relative_to(aside).as_posix() not in version.files:
                    found.unlink()  # a part of a download that was killed
            for folder in [aside, *(path for path in aside.rglob("*") if path.is_dir())]:
                sync_folder(folder)
        except (OSError, DamagedError):
            shutil.rmtree(aside, ignore_errors=True)
            raise

    def _damage(self, version: Version, path: str, found: str) -> str:
        expected = version.files[path].sha256
        return (
            f"{self.store.describe()}: {path} of {version.reference} is damaged: expected sha256 {expected}, "
            f"found {found}; use another version, or delete {keys.blob(version.name, expected)} and register "
            "the same model again"
        )

    # -- aliases

    def aliases(self, name: str) -> dict[str, Move]:
        """Alias -> its current move."""
        found = {alias: self.current(name, alias) for alias in self.store.folders(keys.aliases(name))}
        return {alias: move for alias, move in found.items() if move}

    def current(self, name: str, alias: str) -> Move | None:
        """The last move of an alias; None where it has never been given."""
        moves = self._move_numbers(name, alias)
        return self._move(name, alias, moves[-1]) if moves else None

    def history(self, name: str, alias: str) -> list[Move]:
        """All moves, newest first."""
        return _at_once(lambda number: self._move(name, alias, number), self._move_numbers(name, alias)[::-1])

    def promote(
        self,
        version: Version,
        alias: str,
        *,
        why: str,
        by: str,
        verdict: dict[str, Any] | None = None,
        after: int,
        check: Check,
    ) -> Move | None:
        """Fetch a version from the store, every digest compared, check it, then give it the alias.

        Args:
            after: number of the alias's current move (0: none) on which the decision rests.
            check: looks at the fetched folder; its `ZeroVLError` keeps the alias where it is.

        Returns:
            The move, which is the current one where the version has the alias already; or None where
            someone else moved the alias after `after`: look at the new holder and decide again.
        """
        if alias.isdecimal():
            raise ZeroVLError(f"alias {alias!r}: a number would look like a version; use a name such as 'production'")
        check_name(alias, "alias")
        current = self.current(version.name, alias)
        if (current.number if current else 0) != after:
            return None
        if current and current.version == version.number:
            return current
        found, number = self._checked(version, check), after + 1
        return self._append(
            Move(version.name, alias, number, "promote", version.number, now(), by, why, verdict, found)
        )

    def rollback(self, name: str, alias: str, *, why: str, by: str, check: Check) -> Move:
        """Give the alias back to the version that had it before, checked as for `promote`.

        Rolling back again goes further back.
        """
        while True:
            history = self.history(name, alias)
            if not history:
                raise self._not_found(f"{name}@{alias}", name)
            holders = _holders(history)
            if len(holders) < 2:
                raise ZeroVLError(
                    f"{name}@{alias}: version {holders[-1]} had no one before it; promote a version instead"
                )
            target, number = self.version(name, holders[-2]), history[0].number + 1
            found = self._checked(target, check)
            move = Move(name, alias, number, "rollback", target.number, now(), by, why, target.verdict, found)
            if made := self._append(move):
                return made

    def _checked(self, version: Version, check: Check) -> str:
        """What a check of the version, as it lies in the store, found."""
        with held_as_stored(self, version, cache_folder()) as folder:
            try:
                return check(folder)
            except ZeroVLError as error:
                raise ZeroVLError(f"{version.reference} stays without the alias: {error}") from None

    def _append(self, move: Move) -> Move | None:
        key, data = keys.move(move.name, move.alias, move.number), move.to_bytes()
        # A retried write whose first answer was lost finds its own record there.
        return move if self.store.create(key, data) or self.store.read(key) == data else None

    def _move(self, name: str, alias: str, number: int) -> Move:
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
    """`NAME@LABEL` -> (name, version number or alias)."""
    name, separator, label = reference.rpartition("@")
    if not separator or not label:
        raise ZeroVLError(f"{reference!r}: expected NAME@ALIAS or NAME@VERSION, as in zerovl@production or zerovl@3")
    return check_name(name, "model name"), check_name(label, "alias")


def _holders(history: list[Move]) -> list[int]:
    """The versions that a chain of rollbacks would go through, the current one last."""
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
