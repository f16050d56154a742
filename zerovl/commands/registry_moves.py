"""`zerovl registry promote` and `rollback`: move an alias by hand."""

from __future__ import annotations

import argparse

from zerovl.commands.registry import Action, minute
from zerovl.errors import ZeroVLError
from zerovl.registry.records import Move
from zerovl.registry.registry import Registry, split_reference
from zerovl.release import hooks, provenance, records_json
from zerovl.release.promote import promote, rollback
from zerovl.release.refusal import refused, require_passed
from zerovl.text_format import answer


def _promote(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    before = registry.current(version.name, arguments.alias)
    require_passed(registry, version, arguments.alias, arguments.over_the_gate and bool(arguments.why.strip()))
    move = promote(
        registry,
        version,
        arguments.alias,
        why=arguments.why,
        by=provenance.who_and_where(),
        verdict=version.verdict,
        after=before.number if before else 0,
        hooks=hooks.of_folder(),
    )
    if move is None:
        raise ZeroVLError(
            f"{version.name}@{arguments.alias} was moved by someone else just now; look at "
            f"`zerovl registry history {version.name}@{arguments.alias}` and run it again"
        )
    lines = _move_lines(before, move)
    if refused(version.verdict):
        lines.append(f"note: the gate refused {version.reference}; `zerovl registry show {version.reference}` says why")
    print(answer(arguments.json, records_json.moved(before, move), *lines))


def _rollback(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    name, alias = split_reference(reference)
    before = registry.current(name, alias)
    move = rollback(registry, name, alias, why=arguments.why, by=provenance.who_and_where(), hooks=hooks.of_folder())
    print(answer(arguments.json, records_json.moved(before, move), *_move_lines(before, move)))


def _move_lines(before: Move | None, move: Move) -> list[str]:
    if before == move:
        return [f"{move.name}@{move.alias} is version {move.version} already, since {minute(move.when)} UTC"]
    origin = f"version {before.version}" if before else "none"
    told = f"{move.name}@{move.alias}: {origin} -> version {move.version} (every byte in the store compared)"
    return [told, move.check] if move.check else [told]


ACTIONS: dict[str, Action] = {"promote": _promote, "rollback": _rollback}
