"""Say what became of a candidate: its version, the gate's reasons, and how to load it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from zerovl.log import logger
from zerovl.params import RegisterParams
from zerovl.registry.records import Move, Version
from zerovl.registry.registry import Registry
from zerovl.release.gate import Verdict
from zerovl.release.publish import usage_lines
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


def tell_json(
    version: Version, verdict: Verdict, move: Move | None, section: RegisterParams, before: Collection[int]
) -> None:
    """Print what `tell` says as JSON."""
    value = {
        "reference": version.reference,
        "store": section.store,
        "new": version.number not in before,
        "verdict": verdict.to_json(),
        "move": asdict(move) if move else None,
    }
    print(answer(True, value))


def tell(
    version: Version, verdict: Verdict, move: Move | None, section: RegisterParams, before: Collection[int]
) -> None:
    """Print what was registered.

    `move` is that of the alias, None where it did not move; `before` are the versions that were there.
    """
    if version.number in before:
        since = f"{version.created[:16].replace('T', ' ')} UTC by {version.by}"
        print(f"this model is {version.reference} in {section.store} already, registered {since}; nothing new")
    else:
        contents = f"{plural(len(version.files), 'file')}, {file_size(version.size)}"
        print(f"registered {version.reference} in {section.store} ({contents})")
    if move:
        print(f"gate passed; {version.name}@{section.alias} is version {version.number} (move {move.number})")
        if move.check:
            print(f"  {move.check}")
    elif not verdict.passed:
        print(f"gate FAILED; {version.name}@{section.alias or 'VERSION'} stays as it is:")
    if verdict.holder:
        print(f"  {verdict.holder.alias} was {verdict.holder}")
    for reason in verdict.reasons:
        if not reason.passed or reason.note or reason.low is not None:
            print(f"  {reason}")
    label = section.alias if move else str(version.number)
    print("load it with:\n" + "\n".join(f"    {line}" for line in usage_lines(section, label).splitlines()))
