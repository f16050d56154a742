"""What changed since the last validated data.

The statistics of the last passed validation are kept in `runs/validated.json` together with those
before it. So checking the same data again compares it with the same predecessor and gives the same
verdict, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerovl.files import read_json, write_json

FILE = "validated.json"
Statistics = dict[str, dict[str, dict[str, Any]]]  # source -> split -> name -> value

MEASURES = {
    "drift_rows": (("pairs",),),
    "drift_caption_words": (("words", "mean"), ("words", "p50")),
    "drift_picture_size": (("width", "p50"), ("height", "p50"), ("bytes", "mean")),
}


@dataclass(frozen=True)
class Change:
    """The largest relative change of one kind; 0.5 is half as much again, or half."""

    value: float
    text: str


@dataclass(frozen=True)
class Drift:
    """What is other than in the data of the last passed validation."""

    changes: dict[str, Change] = field(default_factory=dict)  # by rule name
    appeared: tuple[str, ...] = ()  # source/split
    disappeared: tuple[str, ...] = ()


def previous(runs: Path, digest: str) -> Statistics | None:
    """Return the statistics of the last validated data other than the data with `digest`; None where there is none."""
    if not (runs / FILE).exists():
        return None
    kept = read_json(runs / FILE)
    statistics: Statistics | None = kept["previous"] if kept["manifest_digest"] == digest else kept["statistics"]
    return statistics


def keep(runs: Path, digest: str, statistics: Statistics) -> None:
    """Remember validated data; call it after a passed validation only."""
    before = previous(runs, digest)
    write_json(runs / FILE, {"manifest_digest": digest, "statistics": statistics, "previous": before})


def compare(before: Statistics, after: Statistics) -> Drift:
    """Return the changes of every source and split that stands in both; the others are listed by name.

    Where none stands in both there are no changes to judge.
    """
    old, new = dict(_splits(before)), dict(_splits(after))
    common = sorted(old.keys() & new.keys())
    changes = {}
    for rule, measures in MEASURES.items() if common else ():
        worst = Change(0.0, "no change")
        for name in common:
            for path in measures:
                change = _change(name, path, _at(old[name], path), _at(new[name], path))
                if change.value > worst.value:
                    worst = change
        changes[rule] = worst
    return Drift(changes, tuple(sorted(new.keys() - old.keys())), tuple(sorted(old.keys() - new.keys())))


def _splits(statistics: Statistics) -> Iterator[tuple[str, dict[str, Any]]]:
    for source, by_split in statistics.items():
        for split, values in by_split.items():
            yield f"{source}/{split}", values


def _at(values: dict[str, Any], path: tuple[str, ...]) -> float:
    for name in path:
        values = values[name]
    return float(values or 0)  # type: ignore[arg-type] # the leaf is a number, or None where there were no rows


def _change(name: str, path: tuple[str, ...], before: float, after: float) -> Change:
    if before == after:
        return Change(0.0, "no change")
    # From nothing to something has no ratio; it counts as a change by the whole.
    value = abs(after - before) / before if before else 1.0
    return Change(value, f"{' '.join(path)} of {name} went from {before:g} to {after:g}")
