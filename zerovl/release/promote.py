"""Moving an alias: the release is read back from the store, loaded and scored first, and only then moved to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.registry import cache, notes, retention
from zerovl.registry.records import Move, Version, check_alias, now
from zerovl.registry.registry import Registry
from zerovl.release.hooks import SILENT, Hooks


def promote(
    registry: Registry,
    version: Version,
    alias: str,
    *,
    why: str,
    by: str,
    after: int,
    verdict: dict[str, Any] | None = None,
    hooks: Hooks = SILENT,
) -> Move | None:
    """Check a version as it lies in the store, then give it the alias.

    Args:
        registry: where the version and the alias are.
        version: the one that is to have the alias.
        alias: a name such as "production".
        why, by, verdict: kept in the history.
        hooks: who is told afterwards.
        after: number of the alias's current move (0: none) on which the decision rests.

    Returns:
        The move, which is the current one where the version has the alias already; or None where
        someone else moved the alias after `after`: look at the new holder and decide again.

    Raises:
        RetiredError: the version was retired.
        ZeroVLError: the release is damaged, cannot be loaded or scores otherwise; the alias stays where it is.
    """
    current = registry.current(version.name, check_alias(alias))
    if (current.number if current else 0) != after:
        return None
    if current and current.version == version.number:
        return current
    found = _check_as_stored(registry, version)
    move = Move(version.name, alias, after + 1, "promote", version.number, now(), by, why, verdict, found)
    return _append(registry, version, move, hooks)


def rollback(registry: Registry, name: str, alias: str, *, why: str, by: str, hooks: Hooks = SILENT) -> Move:
    """Give the alias back to the version that had it before, checked as for `promote`.

    Rolling back again goes further back.
    """
    while True:
        target, after = registry.holder_before(name, alias)
        found = _check_as_stored(registry, target)
        move = Move(name, alias, after + 1, "rollback", target.number, now(), by, why, target.verdict, found)
        if made := _append(registry, target, move, hooks):
            return made


def check_release(folder: Path) -> str:
    """Load the fetched files of a release and score its sample; returns a sentence on what was found."""
    from zerovl.release import sample  # torch, which the commands that only look at releases do without

    return sample.check(folder)


def _append(registry: Registry, version: Version, move: Move, hooks: Hooks) -> Move | None:
    made = registry.append(move)
    if made:
        retention.keep_in_use(registry, version, f"the alias {move.alias}", move.by)
        hooks.after(registry, made)
    return made


def _check_as_stored(registry: Registry, version: Version) -> str:
    """Compare every byte of a version in the store, then check the release."""
    registry.version_in_use(version.name, version.number)
    with cache.held_as_stored(registry.store, version) as folder:
        try:
            found = check_release(folder)
        except ZeroVLError as error:
            raise ZeroVLError(f"{version.reference} stays without the alias: {error}") from None
    withdrawn = notes.state(registry.notes_on(version)).withdrawals
    return f"{found}; its sample is smaller than it was, pictures were withdrawn from it" if withdrawn else found
