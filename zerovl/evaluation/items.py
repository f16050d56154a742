"""Keep what metrics of evaluators beside retrieval count of each item, for paired comparisons with another model.

`items.parquet` goes with reports and releases, as `queries.parquet` does for retrieval. The form of its rows has a
number in the file (`FORMAT`): what was evaluated before there was such a file has none, and stays readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.errors import ZeroVLError
from zerovl.evaluation.figures import Figures
from zerovl.evaluation.metrics import Table
from zerovl.files import atomic_write

_FAMILY, _FORM = "zerovl-items-", 1
FORMAT = f"{_FAMILY}{_FORM}"
_FORMAT_KEY = b"format"
_DICTIONARY_BYTES = 1 << 26  # of distinct names of items: each metric has the same ones

ITEMS_SCHEMA = pa.schema(
    [
        ("evaluator", pa.string()),
        ("metric", pa.string()),
        ("source", pa.string()),  # "" where the evaluator has no sources
        ("part", pa.int8()),
        ("draw", pa.int32()),
        ("group", pa.int32()),
        ("item", pa.string()),  # a picture: its image_id, or the beginning of its digest
        ("of", pa.float64()),  # what the hits are at most
        ("hits", pa.float64()),
    ],
    metadata={_FORMAT_KEY: FORMAT.encode()},
)


class NewerFormError(ZeroVLError):
    """A file of figures by item has a form of later than this version of ZeroVL; `why` says so without its place."""

    def __init__(self, path: Path, form: str) -> None:
        self.why = f"written by a newer zerovl ({form}, this one reads {FORMAT}); update zerovl"
        super().__init__(f"{path}: {self.why}")


def write_items(path: Path, tables: Mapping[str, Table]) -> None:
    """Write the figures of evaluators' tables by name; a file without rows where there are none."""
    parts = [_rows(name, its) for name, table in tables.items() for its in table.figures]
    with atomic_write(path) as file:
        found = pa.concat_tables([ITEMS_SCHEMA.empty_table(), *parts])
        pq.write_table(found, file, compression="zstd", dictionary_pagesize_limit=_DICTIONARY_BYTES)


def read_items(path: Path) -> pa.Table:
    """Read a file of `write_items`: rows of `ITEMS_SCHEMA`.

    Raises:
        NewerFormError: a newer version of ZeroVL wrote it.
        ZeroVLError: there is no such file, or it is not one of these.
    """
    try:
        found = pq.read_table(path)
    except FileNotFoundError:
        raise ZeroVLError(f"{path}: no such file; run `dvc repro evaluate`") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ZeroVLError(f"{path}: not a table of figures by item ({error}); run `dvc repro -f evaluate`") from None
    said = (found.schema.metadata or {}).get(_FORMAT_KEY, b"no form").decode(errors="replace")
    number = said.removeprefix(_FAMILY)
    if number != said and number.isdecimal() and int(number) > _FORM:
        raise NewerFormError(path, said)
    if said != FORMAT or not found.schema.equals(ITEMS_SCHEMA):
        raise ZeroVLError(
            f"{path}: says {said!r}, expected {FORMAT!r} with its columns; run `dvc repro -f evaluate` to make it again"
        )
    return found


def _rows(evaluator: str, its: Figures) -> pa.Table:
    count = len(its.items)
    columns = [
        [evaluator] * count,
        [its.metric] * count,
        [its.source] * count,
        np.full(count, its.part, np.int8),
        np.full(count, its.draw, np.int32),
        np.zeros(count, np.int32) if its.group is None else its.group.astype(np.int32),
        list(its.items),
        np.ones(count) if its.of is None else its.of,
        its.hits,
    ]
    return pa.table(dict(zip(ITEMS_SCHEMA.names, columns, strict=True)), schema=ITEMS_SCHEMA)
