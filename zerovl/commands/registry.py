"""`zerovl registry ACTION`: look at releases, fetch them, move aliases."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.evaluation.holder import holder_from
from zerovl.evaluation.metrics import (
    HEADLINE,
    MEAN,
    blocks,
    cell,
    further_evaluators,
    headline_block,
    metric_names,
    retrieval_blocks,
    value_of,
)
from zerovl.registry import cache, fetch, transfer
from zerovl.registry.records import Move, Version
from zerovl.registry.registry import Registry, split_reference
from zerovl.registry.stores import open_store
from zerovl.release import provenance, records_json
from zerovl.release.gate import Reason, in_one_line
from zerovl.release.promote import promote, rollback
from zerovl.text_format import file_size, plural, table

_WHAT = {"promote": "promoted", "rollback": "rolled back"}


def run(arguments: argparse.Namespace) -> None:
    """Carry out one action; `arguments` are those of `zerovl.cli`. Raises `ZeroVLError`."""
    actions: dict[str, Callable[[Registry, str, argparse.Namespace], None]] = {
        "list": _list,
        "show": _show,
        "pull": _pull,
        "verify": _verify,
        "promote": _promote,
        "rollback": _rollback,
        "history": _history,
    }
    if getattr(arguments, "json", False):
        actions |= {
            "list": lambda registry, _, __: _print_json(records_json.versions(registry)),
            "show": lambda registry, reference, _: _print_json(records_json.version(registry, reference)),
            "history": lambda registry, reference, _: _print_json(records_json.history(registry, reference)),
        }
    reference = getattr(arguments, "reference", "")
    uri = arguments.store
    if "/" in reference:
        if uri:
            raise ZeroVLError(f"{reference} names a store, and so does --store {uri}; leave one of them out")
        uri, reference = fetch.split_store(reference)
    actions[arguments.action](Registry(open_store(uri or fetch.default_store())), reference, arguments)


def _list(registry: Registry, _: str, __: argparse.Namespace) -> None:
    names = registry.names()
    if not names:
        print(f"no models in {registry.store.describe()}; `dvc repro register` publishes one")
        return
    head = ("MODEL", "VERSION", "CREATED (UTC)", HEADLINE.label, "OF", "MB", "GATE", "ALIASES", "BY")
    rows: list[tuple[str, ...]] = [head]
    for name in names:
        holders: dict[int, list[str]] = {}
        for alias, move in sorted(registry.aliases(name).items()):
            holders.setdefault(move.version, []).append(alias)
        rows += [_row(version, holders.get(version.number, [])) for version in registry.versions(name)]
    print(table(rows))


def _row(version: Version, aliases: list[str]) -> tuple[str, ...]:
    of, block = headline_block(version.metrics)
    return (
        version.name,
        str(version.number),
        _minute(version.created),
        _headline(block),
        of if block else "-",
        f"{version.size / 1e6:.1f}",
        _gate(version.verdict),
        ", ".join(aliases) or "-",
        version.by,
    )


def _show(registry: Registry, reference: str, _: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    aliases = [alias for alias, move in registry.aliases(version.name).items() if move.version == version.number]
    origin = version.provenance
    git = origin.get("git") or {}
    code = git.get("commit", "not in git") + (" (with changed files)" if git.get("dirty") else "")
    print(f"version {version.reference}" + (f" ({', '.join(sorted(aliases))})" if aliases else ""))
    print(
        _pairs(
            [
                ("Registered", f"{_minute(version.created)} UTC by {version.by}"),
                ("Store", registry.store.describe()),
                ("Identity", version.identity),
                ("Code", code),
                ("Data", str(origin.get("data_manifest", "-"))),
                ("Gate", _gate(version.verdict)),
                *_holders(registry, version),
            ]
        )
    )
    print("".join(f"\n    {line}" for line in _verdict_lines(version.verdict)) + "\n")
    print(_score_tables(version.metrics) + "\n")
    files = [(name, f"{info.size:,}", info.sha256) for name, info in version.files.items()]
    print(table([("FILE", "BYTES", "SHA256"), *files]))


def _holders(registry: Registry, version: Version) -> list[tuple[str, str]]:
    """Whom the gate held the version against, and who has the aliases that it does not have."""
    against = holder_from(version.verdict)
    lines = [("Against", f"{against.alias} was {against}")] if against else []
    for alias, move in sorted(registry.aliases(version.name).items()):
        if move.version == version.number:
            continue
        other = registry.version(version.name, move.version)
        of, block = headline_block(other.metrics)
        text = f"{alias} is {other.reference}, {HEADLINE.label} {_headline(block)}" + ("" if of == MEAN else f" ({of})")
        if against is None or against.difference is None or against.reference != other.reference:
            text += f"; `zerovl compare {other.reference} {version.reference}` says the difference"
        lines.append(("Holder", text))
    return lines


def _pull(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    if arguments.out:
        folder = Path(arguments.out)
        transfer.pull(registry.store, version, folder)
    else:
        folder = cache.cached(registry.store, version)
    _tell_right(version)
    print(folder)


def _verify(registry: Registry, reference: str, _: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    transfer.verify(registry.store, version)
    _tell_right(version)


def _tell_right(version: Version) -> None:
    print(f"{version.reference}: {plural(len(version.files), 'file')}, {file_size(version.size)}, all digests right")


def _promote(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    before = registry.current(version.name, arguments.alias)
    if before is None or before.version != version.number:
        _check_gate(version, arguments)
    move = promote(
        registry,
        version,
        arguments.alias,
        why=arguments.why,
        by=provenance.who_and_where(),
        verdict=version.verdict,
        after=before.number if before else 0,
    )
    if move is None:
        raise ZeroVLError(
            f"{version.name}@{arguments.alias} was moved by someone else just now; look at "
            f"`zerovl registry history {version.name}@{arguments.alias}` and run it again"
        )
    _tell_move(before, move)
    if _refused(version.verdict):
        print(f"note: the gate refused {version.reference}; `zerovl registry show {version.reference}` says why")


def _check_gate(version: Version, arguments: argparse.Namespace) -> None:
    """Raise `ZeroVLError` where the gate refused a version and nobody takes it on themselves, with a reason."""
    if _refused(version.verdict) and not (arguments.over_the_gate and arguments.why.strip()):
        raise ZeroVLError(
            f"{version.reference} was refused by the gate: {in_one_line(version.verdict)}. To promote it all the same, "
            "say so and why, for the history: --over-the-gate --why TEXT"
        )


def _refused(verdict: Mapping[str, Any] | None) -> bool:
    return verdict is not None and not verdict.get("passed", True)


def _rollback(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    name, alias = split_reference(reference)
    before = registry.current(name, alias)
    _tell_move(before, rollback(registry, name, alias, why=arguments.why, by=provenance.who_and_where()))


def _tell_move(before: Move | None, move: Move) -> None:
    if before == move:
        print(f"{move.name}@{move.alias} is version {move.version} already, since {_minute(move.when)} UTC")
        return
    origin = f"version {before.version}" if before else "none"
    print(f"{move.name}@{move.alias}: {origin} -> version {move.version} (every byte in the store compared)")
    if move.check:
        print(move.check)


def _history(registry: Registry, reference: str, _: argparse.Namespace) -> None:
    name, alias = split_reference(reference)
    moves = registry.history(name, alias)
    if not moves:
        registry.resolve(reference)  # says what there is instead
    origins = [f"version {move.version}" for move in moves[1:]] + ["nothing"]
    for index, (move, origin) in enumerate(zip(moves, origins, strict=True)):
        print(f"move {move.number}" + (f" ({alias} now)" if index == 0 else ""))
        what = _WHAT.get(move.action, move.action)
        if move.action == "promote" and _refused(move.verdict):
            what += " over the gate"
        lines = [
            ("Date", f"{move.when[:19].replace('T', ' ')} UTC"),
            ("What", f"{what}: {origin} -> version {move.version}"),
            ("By", move.by),
            ("Gate", in_one_line(move.verdict)),
            ("Check", move.check or "-"),
        ]
        print(_pairs(lines))
        print(f"\n    {move.why or '(no reason given)'}\n")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _score_tables(metrics: dict[str, Any]) -> str:
    """Every metric by name, a row each: retrieval's, the headline first, then those of further evaluators."""
    names = metric_names(metrics)
    first = [HEADLINE.name] if HEADLINE.name in names else []
    names = [*first, *(name for name in names if name not in first)]
    tables = [_score_table("SCORES", retrieval_blocks(metrics), names)]
    for evaluator, its in further_evaluators(metrics).items():
        tables.append(_score_table(evaluator, blocks(its), metric_names(its)))
    return "\n\n".join(tables)


def _score_table(title: str, parts: Sequence[tuple[str, Mapping[str, Any]]], names: Sequence[str]) -> str:
    """A column for each part: the mean, the pool, the sources."""
    rows = [(title, *(part for part, _ in parts))]
    rows += [(name, *(_with_interval(block, name) for _, block in parts)) for name in names]
    return table(rows)


def _with_interval(block: Mapping[str, Any], name: str) -> str:
    value, interval = cell(block, name)
    return f"{value} [{interval}]" if interval else value or "-"


def _verdict_lines(verdict: dict[str, Any] | None) -> list[str]:
    return [str(Reason(**reason)) for reason in verdict["reasons"]] if verdict else []


def _gate(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return "-"
    return "passed" if verdict["passed"] else "FAILED"


def _headline(block: Any) -> str:
    value = value_of(block, HEADLINE.name)
    return "-" if value is None else f"{value:.1f}"


def _minute(when: str) -> str:
    return when[:16].replace("T", " ")


def _pairs(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{name + ':':<12}{value}" for name, value in lines)
