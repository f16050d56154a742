"""Say what became of a candidate: its version, the gate's reasons, and how to load it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from zerovl.log import logger
from zerovl.params import RegisterParams
from zerovl.registry.registry import Registry
from zerovl.release.provenance import why_not_again
from zerovl.release.publish import Registered
from zerovl.release.usage import usage_lines
from zerovl.text_format import answer, file_size, plural


def known_before(registry: Registry, section: RegisterParams) -> list[int]:
    """Return the versions that are there; say where there is none: a clone of a project with releases looks so too."""
    found = registry.numbers(section.name)
    if not found:
        logger().info(
            f"{registry.store.describe()} has no {section.name} yet, so this model is compared with none. Where there "
            "are releases of it elsewhere, name their store by register.store of params.yaml"
        )
    return found


def tell_json(registered: Registered, section: RegisterParams, before: Collection[int]) -> None:
    """Print what `tell` says as JSON."""
    value = {
        "reference": registered.version.reference,
        "store": section.store,
        "new": registered.version.number not in before,
        "verdict": registered.verdict.to_json(),
        "move": asdict(registered.move) if registered.move else None,
        "moved_away": str(registered.moved_away or ""),
    }
    print(answer(True, value))


def tell(registered: Registered, section: RegisterParams, before: Collection[int]) -> None:
    """Print what was registered; `before` are the versions that were there."""
    version, verdict, move = registered.version, registered.verdict, registered.move
    if version.number in before:
        since = f"{version.created[:16].replace('T', ' ')} UTC by {version.by}"
        print(f"this model is {version.reference} in {section.store} already, registered {since}; nothing new")
    else:
        contents = f"{plural(len(version.files), 'file')}, {file_size(version.size)}"
        print(f"registered {version.reference} in {section.store} ({contents})")
    if (version.provenance.get("git") or {}).get("dirty"):
        logger().warning(f"{version.reference} {why_not_again(version.provenance)}")
    if move:
        print(f"gate passed; {version.name}@{section.alias} is version {version.number} (move {move.number})")
        if move.check:
            print(f"  {move.check}")
    elif registered.moved_away:
        print(f"gate passed, but {registered.moved_away}")
    elif not verdict.passed:
        print(f"gate FAILED; {version.name}@{section.alias or 'VERSION'} stays as it is:")
    if verdict.holder:
        print(f"  {verdict.holder.alias} was {verdict.holder}")
    for reason in verdict.reasons:
        if not reason.passed or reason.note or reason.low is not None:
            print(f"  {reason}")
    label = section.alias if move else str(version.number)
    lines = usage_lines(section, label, registered.caption).split("\n")
    print("load it with:\n" + "\n".join(f"    {line}" for line in lines))
