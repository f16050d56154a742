"""The records of a registry as plain values, for `zerovl registry list | show | history --json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from zerovl.evaluation.metrics import HEADLINE, headline_block, value_of
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry, split_reference


def versions(registry: Registry) -> list[dict[str, Any]]:
    """Return what `list` says of each version of all models, the newest of each first."""
    rows: list[dict[str, Any]] = []
    for name in registry.names():
        aliases = _aliases(registry, name)
        rows += [_row(version, aliases.get(version.number, [])) for version in registry.versions(name)]
    return rows


def version(registry: Registry, reference: str) -> dict[str, Any]:
    """Return the whole record of a version, with where it is and which aliases it has."""
    found = registry.resolve(reference)
    aliases = _aliases(registry, found.name).get(found.number, [])
    return {"reference": found.reference, "store": registry.store.uri, "aliases": aliases, **asdict(found)}


def history(registry: Registry, reference: str) -> list[dict[str, Any]]:
    """Return the records of an alias's moves, the newest first."""
    moves = registry.history(*split_reference(reference))
    if not moves:
        registry.resolve(reference)  # says what there is instead
    return [asdict(move) for move in moves]


def _row(version: Version, aliases: list[str]) -> dict[str, Any]:
    """The headline is None where a version has none, and `passed` where no gate judged it."""
    of, block = headline_block(version.metrics)
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
    }


def _aliases(registry: Registry, name: str) -> dict[int, list[str]]:
    """The aliases of each version that has any."""
    found: dict[int, list[str]] = {}
    for alias, move in sorted(registry.aliases(name).items()):
        found.setdefault(move.version, []).append(alias)
    return found
