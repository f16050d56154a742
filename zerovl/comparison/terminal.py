"""Write a comparison as tables for the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zerovl.comparison.differences import Row, Scores
from zerovl.comparison.parameters import Parameter
from zerovl.comparison.subject import Subject
from zerovl.text_format import table

_WIDEST = 28  # characters of a parameter's value


def tables(subjects: Sequence[Subject], scores: Scores, parameters: Sequence[Parameter]) -> str:
    """Return who is compared, the scores, and the parameters that differ."""
    parts = [table([(_letter(place), subject.label, subject.origin) for place, subject in enumerate(subjects)])]
    parts += [
        f"{_letter(place)} against A is unpaired: {why}. Differences of numbers from other queries can be chance"
        for place, why in enumerate(scores.unpaired, 1)
        if why and subjects[place].metrics and subjects[0].metrics
    ]
    letters = [_letter(place) for place in range(len(subjects))]
    if scores.rows:
        head = ("SCORE", *letters, *(f"{letter} - A" for letter in letters[1:]))
        parts.append(table([head, *(_row(row) for row in scores.rows)], right=frozenset(range(1, len(subjects) + 1))))
        parts.append("[from, to]: 95% interval of the paired difference. * it lies on one side of 0")
        parts += [
            f"{letter} - A, {why}" for place, letter in enumerate(letters) if place for why in scores.lacking(place)
        ]
    if parameters:
        rows = [(its.key, *(_short(value) for value in its.values)) for its in parameters]
        parts.append(table([("PARAMETER", *letters), *rows]))
    else:
        parts.append("no parameter that is known of all differs")
    return "\n\n".join(parts)


def as_json(subjects: Sequence[Subject], scores: Scores, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the same as JSON: subjects, why they are unpaired, scores by name, parameters by key."""
    return {
        "subjects": [{"name": subject.label, "what": subject.origin} for subject in subjects],
        "unpaired": {subject.label: why for subject, why in zip(subjects[1:], scores.unpaired, strict=True) if why},
        "scores": [
            {
                "part": row.part,
                "metric": row.metric,
                "values": list(row.values),
                "differences": [
                    change
                    and {
                        "value": change.value,
                        "low": change.interval and change.interval.low,
                        "high": change.interval and change.interval.high,
                        "lacking": change.lacking.why if change.interval is None else "",
                    }
                    for change in row.changes
                ],
            }
            for row in scores.rows
        ],
        "parameters": {its.key: list(its.values) for its in parameters},
    }


def number(value: float | None) -> str:
    """Write a score, or a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def numbers(row: Row) -> list[str]:
    """Write the values of a row: whole where all are and none is measured, as counts are."""
    known = [value for value in row.values if value is not None]
    if row.is_measured or any(value != round(value) for value in known):
        return [number(value) for value in row.values]
    return ["-" if value is None else f"{value:,.0f}" for value in row.values]


def _row(row: Row) -> tuple[str, ...]:
    changes = ("-" if change is None else f"{change}{' *' if change.sure else ''}" for change in row.changes)
    return (row.name, *numbers(row), *changes)


def _letter(place: int) -> str:
    return "ABCDEF"[place]


def _short(value: str) -> str:
    return value if len(value) <= _WIDEST else value[: _WIDEST - 3] + "..."
