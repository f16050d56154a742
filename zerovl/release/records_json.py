"""The records of a registry as plain values, for `zerovl registry list | show | history --json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from zerovl.evaluation.metrics import HEADLINE, headline_part, value_of
from zerovl.registry import notes
from zerovl.registry.records import Move, Version
from zerovl.registry.registry import Registry, split_reference
from zerovl.release import hooks
from zerovl.release.version_filter import VersionFilter


def versions(registry: Registry, wanted: VersionFilter) -> list[dict[str, Any]]:
    """Return what `list` says of each version that is wanted, of all models, the newest of each first."""
    return [_row(*found) for found in listed(registry, wanted)]


def listed(registry: Registry, wanted: VersionFilter) -> list[tuple[Version, list[str], notes.State]]:
    """Return the wanted versions of all models with their aliases and what is said of them, newest first.

    Raises:
        ZeroVLError: a condition names a metric that no version has.
    """
    found = []
    for name in registry.names():
        aliases, said = _aliases(registry, name), registry.notes(name)
        for version in registry.versions(name):
            found.append((version, aliases.get(version.number, []), notes.state(said.get(version.number, []))))
    wanted.check(version for version, _, _ in found)
    return [(version, aliases, state) for version, aliases, state in found if wanted(version, state)]


def version(registry: Registry, reference: str) -> dict[str, Any]:
    """Return the whole record of a version, with where it is and which aliases it has."""
    found = registry.resolve(reference)
    aliases = _aliases(registry, found.name).get(found.number, [])
    said = registry.notes_on(found)
    about = {**_state(notes.state(said)), "notes": [asdict(note) for note in said]}
    return {"reference": found.reference, "store": registry.store.uri, "aliases": aliases, **about, **asdict(found)}


def history(registry: Registry, reference: str) -> list[dict[str, Any]]:
    """Return the records of an alias's moves, the newest first."""
    name, alias = split_reference(reference)
    moves = registry.history(name, alias)
    if not moves:
        registry.resolve(reference)  # says what there is instead
    said, told = registry.notes(name), hooks.outcomes(registry, name, alias)
    return [
        {
            **asdict(move),
            "state": _word(notes.state(said.get(move.version, []))),
            "hooks": [asdict(outcome) for outcome in told.get(move.number, [])],
        }
        for move in moves
    ]


def moved(before: Move | None, move: Move) -> dict[str, Any]:
    """Return the record of a move, with the version that had the alias before and whether it is a new one."""
    return {"moved": before != move, "before": before.version if before else None, **asdict(move)}


def _row(version: Version, aliases: list[str], state: notes.State) -> dict[str, Any]:
    """The headline is None where a version has none, and `passed` where no gate judged it."""
    of, block = headline_part(version.metrics)
    return {
        "name": version.name,
        "version": version.number,
        "created": version.created,
        "by": version.by,
        "bytes": version.size,
        HEADLINE.name: value_of(block, HEADLINE.name),
        "of": of,
        "passed": None if version.verdict is None else version.verdict["passed"],
        "aliases": aliases,
        **_state(state),
    }


def _state(state: notes.State) -> dict[str, Any]:
    return {"description": state.description, "tags": list(state.tags), "state": _word(state)}


def _word(state: notes.State) -> str:
    return state.word or "in use"


def _aliases(registry: Registry, name: str) -> dict[int, list[str]]:
    """The aliases of each version that has any."""
    found: dict[int, list[str]] = {}
    for alias, move in sorted(registry.aliases(name).items()):
        found.setdefault(move.version, []).append(alias)
    return found
