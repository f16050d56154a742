"""What comparisons of trained models have in common: where they find things, and runs that are written as each ends."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.common import HERE, machine
from zerovl.files import atomic_write, read_json, write_json

Run = dict[str, Any]


def options_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the folders that all need, whose paths are absolute: of this work, the data and the towers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=_absolute, required=True, help="scratch folder")
    parser.add_argument("--shared", type=_absolute, default=HERE.parent.parent / "shared", help="has data/ and photos/")
    parser.add_argument("--towers", type=_absolute, default=HERE.parent / "towers", help="what `make towers` wrote")
    return parser


def _absolute(text: str) -> Path:
    return Path(text).resolve()


def known_runs(file: Path) -> list[Run]:
    """Return the runs that a file has; none where it is not there."""
    return list(read_json(file)["runs"]) if file.is_file() else []


def write_runs(file: Path, runs: Sequence[Run] | Mapping[str, Run]) -> None:
    """Write all runs with today's date and what machine this is."""
    write_json(file, {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "runs": runs})


def write_table(file: Path, text: str) -> None:
    """Write a table and show it."""
    with atomic_write(file, "w") as out:
        out.write(text)
    print(text)
