"""Which versions are kept, and retiring those that are not: their history stays, their files go after a while.

Retiring looks at aliases and tags, and giving one at the retirement, before they write and after: of two at the same
time the later one sees the other, so that no alias and no tag ends with a version that is retired.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from zerovl.errors import ZeroVLError
from zerovl.params import KeepParams
from zerovl.registry import blobs, notes
from zerovl.registry.notes import RetiredError
from zerovl.registry.records import Note, Version
from zerovl.registry.registry import Registry


def protected(registry: Registry, name: str) -> dict[int, str]:
    """Return the versions that are never retired, each with the reason: holders, the holders before, tagged ones."""
    reasons: dict[int, str] = {}
    for version, said in registry.notes(name).items():
        if tags := notes.state(said).tags:
            reasons[version] = f"it has the tag {', '.join(tags)}"
    for alias in registry.aliases(name):
        *before, holder = registry.holders(name, alias)
        if before:
            reasons.setdefault(before[-1], f"a rollback of {alias} goes to it")
        reasons[holder] = f"it is {alias}"
    return reasons


def retire(registry: Registry, version: Version, why: str, by: str) -> Note:
    """Retire a version; where it was retired before, the note of then is returned.

    Raises:
        ZeroVLError: there is no reason, or the version is protected.
    """
    if not why.strip():
        raise ZeroVLError(f"{version.reference}: retiring needs a reason, for the history: --why TEXT")
    state = notes.state(registry.notes_on(version))
    if state.retired:
        return state.retired
    _require_unprotected(registry, version)
    note = notes.add(registry.store, version, "retire", by, why)
    try:
        _require_unprotected(registry, version)
    except ZeroVLError:  # someone gave it an alias or a tag meanwhile
        notes.add(registry.store, version, "restore", by, "it was given an alias or a tag at the same time")
        raise
    return note


def restore(registry: Registry, version: Version, why: str, by: str) -> Note:
    """Take a version back into use whose files are all there yet.

    Raises:
        ZeroVLError: it is in use, or the same model is in use as another version.
        RetiredError: its files are gone, or on their way.
    """
    said = registry.notes(version.name)
    for other in registry.versions(version.name):
        retired = notes.state(said.get(other.number, [])).retired
        if other.number != version.number and other.identity == version.identity and not retired:
            raise ZeroVLError(
                f"{version.reference} stays retired: the same model is in use as {other.reference}; use that one"
            )
    note = _take_back(registry, version, why, by)
    if note is None:
        raise ZeroVLError(f"{version.reference} is in use; there is nothing to restore")
    return note


def keep_in_use(registry: Registry, version: Version, given: str, by: str) -> None:
    """Take a version back into use that was retired while it was given an alias or a tag."""
    _take_back(registry, version, f"it was given {given} at the same time", by)


def _take_back(registry: Registry, version: Version, why: str, by: str) -> Note | None:
    """Return the note that says so; None where the version is in use."""
    state = notes.state(registry.notes_on(version))
    if not state.retired:
        return None
    if not state.collected:
        note = notes.add(registry.store, version, "restore", by, why)
        # Who removes files looks at the notes after it has marked them: it saw this one, or its marks are seen here.
        if not blobs.missing(registry.store, version):
            return note
        notes.add(registry.store, version, "retire", state.retired.by, state.retired.text)
    raise RetiredError(
        f"{notes.sentence(version.reference, state)}; its files are gone or marked for removal, so it stays retired. "
        "Register the model again to have it as a new version"
    )


def expired(registry: Registry, name: str, keep: KeepParams, today: datetime | None = None) -> list[Version]:
    """Return the versions that a policy does not keep, newest first; none where `keep.last` is 0."""
    return [version for version, reason in reasons(registry, name, keep, today) if not reason]


def reasons(
    registry: Registry, name: str, keep: KeepParams, today: datetime | None = None
) -> list[tuple[Version, str]]:
    """Return the versions in use, newest first, each with the reason why a policy keeps it; "" where it does not.

    A version goes that is not among the last ones, is old enough, and is not protected; with `held_alias` one that ever
    held an alias stays too. Where `keep.last` is 0, all stay.
    """
    before = ((today or datetime.now(UTC)) - timedelta(days=keep.days)).isoformat()
    said, kept = registry.notes(name), protected(registry, name)
    if keep.held_alias:
        for alias in registry.aliases(name):
            for move in registry.history(name, alias):
                kept.setdefault(move.version, f"it was {alias}")
    in_use = [each for each in registry.versions(name) if not notes.state(said.get(each.number, [])).retired]
    found = []
    for place, version in enumerate(in_use):
        by_place = f"it is among the last {keep.last}" if place < keep.last else ""
        by_age = f"it is younger than {keep.days:g} days" if version.created >= before else ""
        always = "" if keep.last else "register.keep.last is 0"
        found.append((version, kept.get(version.number) or by_place or by_age or always))
    return found


def _require_unprotected(registry: Registry, version: Version) -> None:
    if reason := protected(registry, version.name).get(version.number):
        raise ZeroVLError(f"{version.reference} is not retired: {reason}; move the alias or remove the tag first")
