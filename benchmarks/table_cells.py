"""The cells of the benchmarks' tables: a figure, a ratio, a goal that was met or missed, and what was not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import Record
from zerovl.files import read_json

NOT_MEASURED = "not measured"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def read(file: Path) -> Record:
    """What a result file has; nothing where it is not there."""
    return read_json(file) if file.is_file() else {}


def under(result: Record) -> str:
    """The line below a table: when, and on what."""
    if not result:
        return f"{NOT_MEASURED.capitalize()} yet."
    machine = result["machine"]
    what = f"{machine['processor']}, {machine['cores']} cores"
    if machine.get("gpu"):
        what = f"{machine['gpu']}, {machine['gpu_memory_gib']} GiB"
    versions = [f"{name} {machine[name]}" for name in ("torch", "open-clip-torch", "inf-cl") if machine.get(name)]
    return f"Measured {result['date']} on {what}; {', '.join(versions)}."


def value(record: Record | None, field: str, form: Callable[[float], str]) -> str:
    """One cell; an absent figure says why."""
    if record and "not_measured" in record:
        return f"{NOT_MEASURED}: {record['not_measured']}"
    return form(record[field]) if record and field in record else NOT_MEASURED


def ratio(record: Record | None, goal: float | None = None) -> str:
    """The ratio with the range of its rounds, and a goal at most."""
    if not record or "ratio" not in record:
        return NOT_MEASURED
    text = f"{record['ratio']:.2f} ({record['lowest_ratio']:.2f} to {record['highest_ratio']:.2f})"
    return text if goal is None else f"{text}, goal {goal:.2f}: {met(record['ratio'] <= goal)}"


def at_most(record: Record | None, field: str, form: Callable[[float], str], goal: float | None) -> str:
    """A figure, with a goal at most."""
    text = value(record, field, form)
    if goal is None or not record or field not in record:
        return text
    return f"{text}, goal {form(goal)}: {met(record[field] <= goal)}"


def error(record: Record) -> str:
    """The error of a gradient."""
    if "not_measured" in record:
        return f"{NOT_MEASURED}: {record['not_measured']}"
    return "overflows" if record["gradient_error"] is None else f"{record['gradient_error']:.1e}"


def met(good: bool) -> str:
    """What became of a goal."""
    return "met" if good else "missed"


def seconds(time: float) -> str:
    """A time with its unit."""
    return f"{time:.2f} s" if time >= 1 else f"{1000 * time:.3g} ms"


def mib(size: float) -> str:
    """A size that was counted in MiB."""
    return f"{size:,.0f} MiB"


def gib(size: float) -> str:
    """A size that was counted in GiB."""
    return f"{size:.2f} GiB"
