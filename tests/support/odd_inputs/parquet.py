"""Parquet: files that are cut, lie about themselves, or have values of other types."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support import raw_sources
from tests.support.odd_inputs.kind import Kind, Outcome, refused
from tests.support.odd_inputs.tars import LFS_POINTER

Columns = dict[str, Any]


def table(columns: Columns, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def named(image: Any = "2.jpg", caption: Any = "two") -> Columns:
    return {"image": ["0.jpg", "1.jpg", image], "caption": ["zero", "one", caption]}


def embedded(third: Any) -> Columns:
    pictures = [{"bytes": raw_sources.jpeg(number), "path": None} for number in range(2)]
    return {"image": [*pictures, third], "caption": ["zero", "one", "two"]}


def parquet(what: str, data: Callable[[], bytes], outcome: Outcome) -> Kind:
    def write(folder: Path) -> None:
        for number in range(3):
            (folder / f"{number}.jpg").write_bytes(raw_sources.jpeg(number))
        (folder / "train.parquet").write_bytes(data())

    return Kind("Parquet", what, write, outcome)


def as_categories() -> Columns:
    """Pictures as pandas stores equal values."""
    pictures = pa.array([raw_sources.jpeg(number) for number in range(3)]).dictionary_encode()
    return {"image": pictures, "caption": ["zero", "one", "two"]}


def good() -> bytes:
    return table(named())


def damaged() -> bytes:
    """Two row groups; the pages of the first one's captions are zeros."""
    columns = {"image": [f"{number % 3}.jpg" for number in range(200)], "caption": [f"text {n:04}" for n in range(200)]}
    data = bytearray(table(columns, row_group_size=100, use_dictionary=False))
    chunk = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(1)
    start = chunk.data_page_offset + 30
    data[start : start + 60] = bytes(60)
    return bytes(data)


def not_utf8() -> bytes:
    caption = pa.array([b"zero", b"one", b"caf\xe9"]).view(pa.string())
    return table({"image": ["0.jpg", "1.jpg", "2.jpg"], "caption": caption})


KINDS = [
    parquet("empty file", lambda: b"", refused("not a Parquet file, or cut short")),
    parquet("mark alone", lambda: b"PAR1", refused("not a Parquet file, or cut short")),
    parquet("cut short", lambda: good()[:-30], refused("not a Parquet file, or cut short")),
    parquet("text", lambda: b"<html>404</html>" * 9, refused("not a Parquet file, or cut short")),
    parquet("pointer of Git LFS", lambda: LFS_POINTER, refused("a pointer of Git LFS in place of the file")),
    parquet("pictures as categories", lambda: table(as_categories()), Outcome(3, 0)),
    parquet("pictures as base64", lambda: table(named("/9j/4AAQSkZJRg==")), Outcome(2, 1, "a picture as base64 text")),
    parquet("encrypted", lambda: b"PARE" + good()[4:-4] + b"PARE", refused("cannot be read")),
    parquet(
        "footer longer than the file",
        lambda: good()[:-8] + b"\xff\xff\xff\x7fPAR1",
        refused("not a Parquet file, or cut short"),
    ),
    parquet(
        "footer of zeros", lambda: good()[:-108] + bytes(100) + good()[-8:], refused("not a Parquet file, or cut short")
    ),
    parquet("damaged pages", damaged, Outcome(3, 100, "damaged Parquet")),
    parquet(
        "no rows",
        lambda: table({"image": pa.array([], pa.string()), "caption": pa.array([], pa.string())}),
        refused("has no samples"),
    ),
    parquet("no known columns", lambda: table({"url": ["x"], "alt": ["y"]}), refused("no column for the image")),
    parquet("empty values", lambda: table(named(None, None)), Outcome(2, 1, "no picture")),
    parquet(
        "pictures that are numbers",
        lambda: table({"image": [1], "caption": ["one"]}),
        Outcome(0, 1, "picture of type int, neither a name nor bytes"),
    ),
    parquet(
        "captions that are numbers",
        lambda: table({"image": ["0.jpg"], "caption": [0.5]}),
        Outcome(0, 1, "caption of type float, not a text"),
    ),
    parquet(
        "list with an empty caption",
        lambda: table({"image": ["0.jpg"], "caption": [["zero", None]]}),
        Outcome(1, 1, "empty caption"),
    ),
    parquet("caption that is not UTF-8", not_utf8, Outcome(2, 1, "caption is not valid Unicode (a lone surrogate)")),
    parquet(
        "bytes that are no picture",
        lambda: table(embedded({"bytes": b"text", "path": None})),
        Outcome(2, 1, "not a picture"),
    ),
    parquet(
        "neither bytes nor name", lambda: table(embedded({"bytes": None, "path": None})), Outcome(2, 1, "no picture")
    ),
    parquet(
        "name that leaves the folder",
        lambda: table(embedded({"bytes": None, "path": "../x"})),
        Outcome(2, 1, "file name '../x' leaves its folder"),
    ),
]
