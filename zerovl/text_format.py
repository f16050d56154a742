"""Numbers, sizes, tables and plurals as text, the same way everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from zerovl.errors import ZeroVLError

_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def answer(as_json: bool, value: Any, *lines: str) -> str:
    """Return what a command prints: `value` as readable JSON, or the lines."""
    return json.dumps(value, indent=2, ensure_ascii=False) if as_json else "\n".join(lines)


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts names as people count: i2t_r5 before i2t_r10."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def plural(count: int, singular: str, several: str = "") -> str:
    """Return a count with its noun: "1 rank", "2 ranks", "1,200 pairs"; `several` where an s is not enough."""
    return f"{count:,} {singular if count == 1 else several or singular + 's'}"


def amount(count: float, singular: str) -> str:
    """Return a number that may be a part with its noun: "1 epoch", "0.75 epochs", "20 epochs"."""
    return f"{count:g} {singular if count == 1 else singular + 's'}"


def size(count: float) -> str:
    """Return bytes as memory is counted, in powers of 1024: 512 MiB, 3.1 GiB."""
    for unit in ("TiB", "GiB"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.1f} {unit}"
    if count >= 10 * 2**20:
        return f"{count / 2**20:.0f} MiB"
    return f"{count / 2**20:.1f} MiB" if count >= 2**18 else f"{count / 2**10:.1f} KiB"


def parse_size(text: str, origin: str) -> int:
    """Return the bytes of a size such as 16GiB; raises `ZeroVLError` naming `origin`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]iB)", text.strip())
    if not match or not float(match[1]):
        raise ZeroVLError(
            f"{origin}: {text!r} is not a size; write a number above 0 and KiB, MiB, GiB or TiB, as 16GiB"
        )
    return int(float(match[1]) * _UNITS[match[2]])


def file_size(count: float) -> str:
    """Return bytes as files are counted, in powers of 1000: 812 B, 3.1 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def short(value: float) -> str:
    """Return a number for an axis or a narrow cell: 1200 as 1.2k, 0.25 as 0.25, 3.0 as 3."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.4g}{letter}"
    return f"{value:.4g}"


def duration(hours: float) -> str:
    """Return a time span in the unit that fits it: 3.5 hours, 12.0 minutes, 40 seconds."""
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.0f} seconds"


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """Return columns as wide as their widest cell, two blanks apart; those numbered in `right` end flush."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(
            f"{cell:>{width}}" if column in right else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def names(values: Sequence[str], most: int) -> str:
    """Return the first names, and how many more there are: "a, b and 3 more"."""
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more
