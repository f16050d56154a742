"""The entries of what filters left out, in tables beside the manifest, and their counts.

    data/manifest/<source>-<split>.left-out.parquet    every entry; the first ones of each reason with a small picture
    data/manifest/left_out.json                        counts by source, split and reason

Neither is there where nothing was left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.data.filtering.left_out import FirstExamples, LeftOut
from zerovl.files import atomic_write, read_json, write_json
from zerovl.parquet_files import open_parquet

FILE = "left_out.json"
_ROWS = 10_000  # of a row group

_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("whole", pa.bool_()),  # the sample went; else its other captions stay
        ("key", pa.string()),
        ("image_id", pa.int64()),
        ("captions", pa.list_(pa.string())),  # that were left out
        ("origin", pa.string()),
        ("picture", pa.binary()),  # a small JPEG of the first entries of a reason
    ]
)


@dataclass
class Tally:
    """How much went for one reason."""

    samples: int = 0
    captions: int = 0


Tallies = dict[str, dict[str, dict[str, Tally]]]  # source -> split -> reason -> how much


class LeftOutWriter:
    """Writes the entries of one split in bounded memory; without any there is no table."""

    def __init__(self, folder: Path, source: str, split: str) -> None:
        self.tallies: dict[str, Tally] = {}
        self._path = table_path(folder, source, split)
        self.examples = FirstExamples()
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        if exception[0] is None:
            self._flush()
        return self._stack.__exit__(*exception)

    def add(self, entries: Iterable[LeftOut]) -> None:
        """Write entries; the small pictures of all but the first of each reason are dropped."""
        for entry in entries:
            tally = self.tallies.setdefault(entry.reason, Tally())
            tally.samples += entry.whole
            tally.captions += len(entry.captions)
            kept = entry if self.examples.count(entry.reason) else replace(entry, picture=None)
            self._rows.append(asdict(kept))
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            file = self._stack.enter_context(atomic_write(self._path))
            self._writer = self._stack.enter_context(pq.ParquetWriter(file, _SCHEMA, compression="zstd"))
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=_SCHEMA))
        self._rows = []


def table_path(folder: Path, source: str, split: str) -> Path:
    """Return where the entries of a source's split lie."""
    return folder / f"{source}-{split}.left-out.parquet"


def entries(folder: Path, source: str, split: str) -> Iterator[LeftOut]:
    """Give all entries of a source's split."""
    path = table_path(folder, source, split)
    if path.is_file():
        with open_parquet(path) as table:
            for batch in table.iter_batches(_ROWS):
                yield from map(_entry, batch.to_pylist())


def _entry(values: dict[str, Any]) -> LeftOut:
    return LeftOut(**values | {"captions": tuple(values["captions"])})


def save_tallies(folder: Path, tallies: Tallies) -> None:
    """Write the counts, where there are any."""
    counted = {
        source: {
            split: {reason: asdict(tally) for reason, tally in sorted(reasons.items())}
            for split, reasons in sorted(by_split.items())
            if reasons
        }
        for source, by_split in sorted(tallies.items())
        if any(by_split.values())
    }
    if counted:
        write_json(folder / FILE, counted)


def load_tallies(folder: Path) -> Tallies:
    """Read the counts; empty where nothing was left out."""
    if not (folder / FILE).is_file():
        return {}
    return {
        source: {
            split: {reason: Tally(**values) for reason, values in reasons.items()}
            for split, reasons in by_split.items()
        }
        for source, by_split in read_json(folder / FILE).items()
    }


def first_examples(folder: Path, source: str, split: str) -> dict[str, list[LeftOut]]:
    """Return the first `EXAMPLES` entries of each reason; reads the table batch by batch until it has them."""
    found: dict[str, list[LeftOut]] = {}
    path = table_path(folder, source, split)
    if not path.is_file():
        return found
    with open_parquet(path) as table:
        examples = FirstExamples()
        for batch in table.iter_batches(_ROWS):
            for row, reason in enumerate(batch.column("reason").to_pylist()):
                if examples.count(reason):
                    values = batch.slice(row, 1).to_pylist()[0]
                    found.setdefault(reason, []).append(_entry(values))
    return found
