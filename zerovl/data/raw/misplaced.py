"""Pictures that are missing where a table names them, and lie in another folder of their source."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from zerovl.data.manifest import Manifest
from zerovl.data.raw.layout import Source, is_remote
from zerovl.data.raw.records import MISSING, is_debris
from zerovl.parquet_files import open_parquet
from zerovl.text_format import plural

_BATCH = 65_536  # rows
_DEPTH = 2  # folders within folders that are looked into


def misplaced(manifest: Manifest, sources: list[Source]) -> Iterator[str]:
    """Give a line for each split that lacks most of its pictures, where the first of them lies elsewhere."""
    for source in sources:
        for split in source.splits:
            info = manifest.splits.get((source.name, split))
            if info is None or info.broken <= info.pairs or is_remote(source.path):
                continue
            missing, first = _missing(manifest, source.name, split)
            if 2 * missing <= info.pairs + info.broken:
                continue
            if found := _elsewhere(Path(source.path), Path(first).name):
                yield (
                    f"{source.name}/{split}: {first}, the first of {plural(missing, 'missing picture')}, is there as "
                    f"{found.relative_to(source.path)}: {_fix(source, found)}"
                )


def _fix(source: Source, found: Path) -> str:
    if not {"columns", "pictures"} <= source.layout.uses:  # a table's
        return "move the pictures to where the layout has them (data/README.md)"
    folder = found.parent.relative_to(source.path)
    return f"name the source in data.sources with pictures: {folder}, or write that folder into the table"


def _missing(manifest: Manifest, source: str, split: str) -> tuple[int, str]:
    """Return how many inputs of a split are missing files, and the name of the first as its table has it."""
    count, first = 0, ""
    with open_parquet(manifest.table_path(source, split)) as file:
        for batch in file.iter_batches(_BATCH, columns=["error", "origin"]):
            for error, origin in zip(*(batch.column(name).to_pylist() for name in ("error", "origin")), strict=True):
                if error == MISSING:
                    count, first = count + 1, first or str(origin).rpartition(" (")[0]
    return count, first


def _elsewhere(folder: Path, name: str, depth: int = _DEPTH) -> Path | None:
    """Return the file of this name in the folder or the folders below it; None where there is none."""
    if (folder / name).is_file():
        return folder / name
    if not depth:
        return None
    with os.scandir(folder) as entries:
        below = sorted(entry.path for entry in entries if entry.is_dir() and not is_debris(entry.name))
    found = (_elsewhere(Path(path), name, depth - 1) for path in below if os.access(path, os.R_OK | os.X_OK))
    return next(filter(None, found), None)
