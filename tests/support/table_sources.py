"""Sources of tables of each kind, and what of them is usable."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support import raw_sources

Rows = list[dict[str, Any]]


def write_text(path: Path, rows: Rows, delimiter: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


WRITERS: dict[str, Callable[[Path, Rows], object]] = {
    ".csv": lambda path, rows: write_text(path, rows, ","),
    ".tsv": lambda path, rows: write_text(path, rows, "\t"),
    ".jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"),
    ".parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}


def write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[path.suffix](path, rows)


def write_pictures(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw_sources.jpeg(seed))


def good(manifest: Any, split: str = "train", source: str = "a") -> list[tuple[str, list[str]]]:
    """(origin, captions) of the usable rows."""
    found = raw_sources.rows(manifest, source, split)
    return [(row["origin"], row["captions"]) for row in found if row["error"] is None]
