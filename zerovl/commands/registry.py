"""`zerovl registry ACTION`: look at releases and fetch them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.evaluation.holder import Holder, holder_from
from zerovl.evaluation.metrics import HEADLINE, headline_part, value_of
from zerovl.registry import cache, fetch, notes, transfer
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry, split_reference
from zerovl.registry.stores import open_store
from zerovl.release import hooks, records_json, score_tables, version_filter
from zerovl.release.gate import Reason, in_one_line
from zerovl.release.refusal import refused
from zerovl.release.version_filter import VersionFilter
from zerovl.text_format import answer, file_size, plural, table

Action = Callable[[Registry, str, argparse.Namespace], None]

_WHAT = {"promote": "promoted", "rollback": "rolled back"}


def run(arguments: argparse.Namespace, further: Mapping[str, Action]) -> None:
    """Carry out one action, of these or of `further` ones; `arguments` are those of `zerovl.cli`.

    Raises:
        ZeroVLError: the action's own, or the store is named twice.
    """
    actions: dict[str, Action] = {
        "list": _list,
        "show": _show,
        "pull": _pull,
        "verify": _verify,
        "history": _history,
        **further,
    }
    if arguments.json:
        actions |= {
            "list": lambda registry, _, given: _print_json(records_json.versions(registry, _wanted(given))),
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


def _list(registry: Registry, _: str, arguments: argparse.Namespace) -> None:
    found = records_json.listed(registry, _wanted(arguments))
    if not found:
        names = registry.names()
        print(
            f"no version of {', '.join(names)} in {registry.store.describe()} has all that --where and --tag ask for"
            if names
            else f"no models in {registry.store.describe()}; `dvc repro register` publishes one"
        )
        return
    head = ("MODEL", "VERSION", "CREATED (UTC)", HEADLINE.label, "OF", "MB", "GATE", "ALIASES", "BY", "TAGS", "STATE")
    rows: list[tuple[str, ...]] = [head, *(_row(*each) for each in found)]
    if all(row[-2:] == ("-", "-") for row in rows[1:]):
        rows = [row[:-2] for row in rows]  # nobody has tagged or retired anything
    print(table(rows))


def _wanted(arguments: argparse.Namespace) -> VersionFilter:
    return version_filter.parse(arguments.where, arguments.tagged)


def _row(version: Version, aliases: list[str], state: notes.State) -> tuple[str, ...]:
    of, block = headline_part(version.metrics)
    return (
        version.name,
        str(version.number),
        minute(version.created),
        _headline(block),
        of if block else "-",
        f"{version.size / 1e6:.1f}",
        _gate(version.verdict),
        ", ".join(aliases) or "-",
        version.by,
        ", ".join(state.tags) or "-",
        state.word or "-",
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
                ("Registered", f"{minute(version.created)} UTC by {version.by}"),
                ("Store", registry.store.describe()),
                ("Identity", version.identity),
                ("Code", code),
                ("Data", str(origin.get("data_manifest", "-"))),
                ("Gate", _gate(version.verdict)),
                *_holders(registry, version),
                *_said(registry, version),
            ]
        )
    )
    print("".join(f"\n    {line}" for line in _verdict_lines(version.verdict)) + "\n")
    print(score_tables.of(version.metrics) + "\n")
    files = [(name, f"{info.size:,}", info.sha256) for name, info in version.files.items()]
    print(table([("FILE", "BYTES", "SHA256"), *files]))


def _said(registry: Registry, version: Version) -> list[tuple[str, str]]:
    """What was said of the version after it was published."""
    state = notes.state(registry.notes_on(version))
    lines = [("About", state.description)] if state.description else []
    if state.tags:
        lines.append(("Tags", ", ".join(state.tags)))
    if state.retired:
        lines.append(("State", notes.sentence(version.reference, state)))
    return lines + [
        ("Withdrawn", f"{path}, sha256 {each.withdrawn}, {minute(note.when)} UTC by {note.by}: {note.text}")
        for note in state.withdrawals
        for path, each in note.replaced.items()
    ]


def _holders(registry: Registry, version: Version) -> list[tuple[str, str]]:
    """Whom the gate held the version against, and who has the aliases that it does not have, with the differences."""
    against = holder_from(version.verdict)
    lines = [("Against", f"{against.alias} was {against}")] if against else _unnamed_holder(version.verdict)
    for alias, move in sorted(registry.aliases(version.name).items()):
        if move.version == version.number:
            continue
        other = registry.version(version.name, move.version)
        if against is not None and against.difference is not None and against.reference == other.reference:
            lines.append(("Holder", f"{alias} is {against}"))
            continue
        holder = Holder.released(other.reference, alias, other.metrics)
        lines.append(("Holder", f"{alias} is {_compared(registry, version, other, holder)}"))
    return lines


def _compared(registry: Registry, version: Version, other: Version, holder: Holder) -> str:
    """A holder with the difference to it, by the ranks that both releases kept."""
    from zerovl.release.kept_ranks import released_difference  # Arrow, which nothing else here waits for

    found = released_difference(registry, version, other)
    if isinstance(found, str):
        return f"{replace(holder, why=found)}; `zerovl compare {other.reference} {version.reference}` has more"
    return str(holder.compared(version.metrics, found))


def _unnamed_holder(verdict: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What a verdict of before holders were named says of one: the drop alone."""
    reasons = [Reason(**reason) for reason in (verdict or {}).get("reasons", ())]
    drops = [reason for reason in reasons if reason.rule.startswith("max_drop ") and reason.value is not None]
    if not drops:
        return []
    return [("Against", f"a holder that this older release does not name; {drops[0].rule}{drops[0].numbers}")]


def _pull(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    registry.version_in_use(version.name, version.number)
    if arguments.out:
        folder = Path(arguments.out)
        transfer.pull(registry.store, version, folder)
    else:
        folder = cache.cached(registry.store, version)
    print(answer(arguments.json, {**_checked(version), "folder": str(folder)}, _all_right(version), str(folder)))


def _verify(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    transfer.verify(registry.store, version)
    print(answer(arguments.json, _checked(version), _all_right(version)))


def _all_right(version: Version) -> str:
    return f"{version.reference}: {plural(len(version.files), 'file')}, {file_size(version.size)}, all digests right"


def _checked(version: Version) -> dict[str, Any]:
    return {"reference": version.reference, "files": len(version.files), "bytes": version.size, "digests": "right"}


def _history(registry: Registry, reference: str, _: argparse.Namespace) -> None:
    name, alias = split_reference(reference)
    moves = registry.history(name, alias)
    if not moves:
        registry.resolve(reference)  # says what there is instead
    said, told = registry.notes(name), hooks.outcomes(registry, name, alias)
    labels = [_label(move.version, notes.state(said.get(move.version, []))) for move in moves]
    origins = [*labels[1:], "nothing"]
    for index, (move, label, origin) in enumerate(zip(moves, labels, origins, strict=True)):
        print(f"move {move.number}" + (f" ({alias} now)" if index == 0 else ""))
        what = _WHAT.get(move.action, move.action)
        if move.action == "promote" and refused(move.verdict):
            what += " over the gate"
        lines = [
            ("Date", f"{move.when[:19].replace('T', ' ')} UTC"),
            ("What", f"{what}: {origin} -> {label}"),
            ("By", move.by),
            ("Gate", in_one_line(move.verdict)),
            ("Check", move.check or "-"),
            *(("Hook", str(outcome)) for outcome in told.get(move.number, [])),
        ]
        print(_pairs(lines))
        print(f"\n    {move.why or '(no reason given)'}\n")


def _label(version: int, state: notes.State) -> str:
    return f"version {version}" + (f" ({state.word} since)" if state.word else "")


def _print_json(value: Any) -> None:
    print(answer(True, value))


def _verdict_lines(verdict: dict[str, Any] | None) -> list[str]:
    return [str(Reason(**reason)) for reason in verdict["reasons"]] if verdict else []


def _gate(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return "-"
    return "passed" if verdict["passed"] else "FAILED"


def _headline(block: Any) -> str:
    value = value_of(block, HEADLINE.name)
    return "-" if value is None else f"{value:.1f}"


def minute(when: str) -> str:
    """Return date and minute of an ISO time, for people."""
    return when[:16].replace("T", " ")


def _pairs(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{name + ':':<12}{value}" for name, value in lines)
