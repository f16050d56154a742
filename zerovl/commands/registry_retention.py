"""`zerovl registry retire | restore | expire | gc | forget`: versions go out of use, files and pictures go."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from zerovl import params_file
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.params import KeepParams
from zerovl.registry import collection, notes, retention
from zerovl.registry.collection import Garbage
from zerovl.registry.records import Note, check_name
from zerovl.registry.registry import Registry
from zerovl.release import forget, provenance
from zerovl.text_format import answer, file_size, plural, table

Action = Callable[[Registry, str, argparse.Namespace], None]

_MOST_DAYS = 36_500


def _retire(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    note = retention.retire(registry, version, arguments.why, provenance.who_and_where())
    told = notes.sentence(version.reference, notes.state(registry.notes_on(version)))
    hint = f"`zerovl registry gc {version.name}` removes its files {collection.GRACE_DAYS:g} days after that"
    print(answer(arguments.json, asdict(note), told, hint))


def _restore(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    note = retention.restore(registry, version, arguments.why, provenance.who_and_where())
    print(answer(arguments.json, asdict(note), f"{version.reference} is in use again"))


def _expire(registry: Registry, _: str, arguments: argparse.Namespace) -> None:
    keep = params_file.load(Path(arguments.params)).register_.keep
    found, rule, retired = retention.expired(registry, _known(registry, arguments.name), keep), _rule(keep), []
    for version in found:
        try:
            if not arguments.dry_run:
                retention.retire(registry, version, f"register.keep: {rule}", provenance.who_and_where())
            retired.append(version)
        except ZeroVLError as error:
            logger().warning(str(error))  # it was given an alias or a tag just now; the others go all the same
    word = "would be retired" if arguments.dry_run else "retired"
    value = {"keep": rule, "dry_run": arguments.dry_run, "versions": [version.number for version in retired]}
    told = [f"{version.reference}: {word}" for version in retired]
    print(answer(arguments.json, value, *told, f"{plural(len(retired), 'version')} {word}; {rule}"))


def _rule(keep: KeepParams) -> str:
    if not keep.last:
        return "register.keep.last is 0, so all versions are kept"
    held = ", and what ever held an alias" if keep.held_alias else ""
    return f"kept are the last {keep.last}, what is younger than {keep.days:g} days{held}"


def _gc(registry: Registry, _: str, arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.grace <= _MOST_DAYS:
        raise ZeroVLError(f"--grace {arguments.grace:g}: expected a number of days, 0 to {_MOST_DAYS:,}")
    name, before = _known(registry, arguments.name), collection.grace(arguments.grace)
    if arguments.dry_run:
        found = collection.garbage(registry, name, before)
    else:
        found = collection.collect(registry, name, before, provenance.who_and_where())
    total = sum(each.size for each in found)
    word = "would be removed" if arguments.dry_run else "removed"
    waiting = collection.waiting(registry, name, before)
    until = {number: _until(note, arguments.grace) for number, note in waiting.items()}
    told = [
        f"{name}@{number}: retired {waiting[number].when[:10]}, its files stay until {until[number]}"
        for number in until
    ]
    value = {
        "dry_run": arguments.dry_run,
        "bytes": total,
        "files": [asdict(each) for each in found],
        "waiting": [{"version": number, "until": time} for number, time in until.items()],
    }
    summed = f"{plural(len(found), 'file')}, {file_size(total)} {word}"
    print(answer(arguments.json, value, *_table(found), *told, summed))


def _until(note: Note, days: float) -> str:
    """Return until when the files of a version stay that was retired by a note: UTC, to the minute."""
    end = datetime.fromisoformat(note.when) + timedelta(days=days)
    return f"{end:%Y-%m-%d %H:%M} UTC"


def _forget(registry: Registry, _: str, arguments: argparse.Namespace) -> None:
    name, by = _known(registry, arguments.name), provenance.who_and_where()
    if arguments.sha256:
        found = forget.forget_digest(registry, name, arguments.sha256, arguments.why, by)
    else:
        found = forget.forget_key(registry, name, arguments.key, arguments.why, by)
    told = [f"picture {digest}: must not be in releases of {name}" for digest in found.pictures]
    told += [f"{name}@{number}: its sample is smaller now" for number in found.versions]
    total = f"{plural(len(found.removed), 'file')}, {file_size(sum(each.size for each in found.removed))}"
    kept = "" if found.versions else "; no sample had it"
    print(answer(arguments.json, asdict(found), *told, f"{total} removed from {registry.store.describe()}{kept}"))


def _table(found: list[Garbage]) -> list[str]:
    rows = [(each.path, ", ".join(map(str, each.versions)), f"{each.size:,}", each.key) for each in found]
    return [table([("FILE", "OF VERSION", "BYTES", "KEY"), *rows])] if found else []


def _known(registry: Registry, name: str) -> str:
    """A name that has versions: a wrong one must not look like a store in which there is nothing to do."""
    if not registry.numbers(check_name(name, "model name")):
        names = ", ".join(registry.names()) or "no models at all"
        raise ZeroVLError(f"{registry.store.describe()}: there is no {name}; the store has {names}")
    return name


ACTIONS: dict[str, Action] = {
    "retire": _retire,
    "restore": _restore,
    "expire": _expire,
    "gc": _gc,
    "forget": _forget,
}
