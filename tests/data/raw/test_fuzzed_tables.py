"""CSV, TSV and JSON lines that Hypothesis writes and damages: each row arrives or is counted, or a file is refused."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import examples
from tests.support.odd_inputs import texts
from tests.support.odd_inputs.prepared import bounded_memory, prepared
from zerovl.data.manifest import Manifest
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.layout import Source
from zerovl.data.raw.layouts import LAYOUTS
from zerovl.data.raw.records import Record
from zerovl.errors import ZeroVLError

ZEROVL = ("image", "image_id", "caption", "caption_id")
TABLE = ("filepath", "title", "split", "image_id")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "utf-7")


@pytest.fixture(autouse=True)
def _in_bounded_memory() -> Iterator[None]:
    with bounded_memory():
        yield


text = st.text(max_size=20) | st.text(alphabet="a\",;\t\n\r\0'\\ \u00e9\u2028\ufeff", max_size=30)
names = (
    st.sampled_from(("0.jpg", "1.jpg", "2.jpg", "3.jpg", "../x.jpg", "/etc/passwd", "", "sub/", "e\u0301.jpg")) | text
)
numbers = st.sampled_from(("0", "1", "2", "-1", "1e3", "\u0662", "9" * 30, " 7 ", "NaN")) | text
splits = st.sampled_from(("train", "valid", "test", "", "Train "))


def rows_of(columns: tuple[str, ...]) -> st.SearchStrategy[list[tuple[str, ...]]]:
    """Rows of a table with those columns."""
    cells = {"image": names, "filepath": names, "caption": text, "title": text, "split": splits}
    return st.lists(st.tuples(*(cells.get(name, numbers) for name in columns)), max_size=12)


def read(folder: Path, layout: str) -> list[Record]:
    """The records of all splits, as `prepare` reads them."""
    its = LAYOUTS[layout]
    source = Source("a", str(folder), its, (), "test")
    present = its.splits(source)
    source = Source("a", str(folder), its, tuple(present), "test")
    fetched = FetchedFiles(folder.parent / "fetched")
    readings = (its.read(source, split, 10_000, fetched) for split in present)
    return [record for reading in readings for record in reading.records]


def counted(records: Iterable[Record]) -> int:
    """Captions that arrive, with those that are lost: each stands for itself, a row without one for its row."""
    return sum(max(1, len(record.captions)) for record in records)


def written(rows: list[tuple[str, ...]], columns: tuple[str, ...], delimiter: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows([columns, *rows])
    return buffer.getvalue()


def refused_or_read(folder: Path, layout: str, file: str) -> list[Record]:
    """The records; none where the file is refused by a line that names it."""
    try:
        return read(folder, layout)
    except ZeroVLError as error:
        refusal = str(error)
    assert file in refusal
    assert refusal.isprintable()  # one line too
    return []


@examples(200)
@given(rows=rows_of(ZEROVL))
def test_each_row_of_a_csv_is_counted(rows: list[tuple[str, ...]], tmp_path: Path) -> None:
    texts.pictures(tmp_path / "train")
    (tmp_path / "train_anno.csv").write_bytes(written(rows, ZEROVL, ",").encode("utf-8", "surrogatepass"))
    assert counted(read(tmp_path, "zerovl")) == len(rows)


@examples(200)
@given(rows=rows_of(TABLE), delimiter=st.sampled_from("\t,;"))
def test_each_row_of_a_table_is_counted(rows: list[tuple[str, ...]], delimiter: str, tmp_path: Path) -> None:
    texts.pictures(tmp_path)
    (tmp_path / "pairs.tsv").write_bytes(written(rows, TABLE, delimiter).encode("utf-8", "surrogatepass"))
    present = {row[2].strip().lower() for row in rows}
    ours = {"train", "valid" if "valid" in present else "test"}  # what is left out is said by the notes
    assert counted(read(tmp_path, "table")) == sum(row[2].strip().lower() in ours for row in rows)


@st.composite
def damaged(draw: st.DrawFn, columns: tuple[str, ...]) -> bytes:
    """A table in some encoding, with cells that were never quoted, and bytes that nobody wrote."""
    rows, delimiter = draw(rows_of(columns)), draw(st.sampled_from(",\t;"))
    raw = "\n".join(delimiter.join(row) for row in [columns, *rows])
    content = draw(st.sampled_from((raw, written(rows, columns, delimiter))))
    data = bytearray(content.encode(draw(st.sampled_from(ENCODINGS)), "replace"))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 5))] = draw(
            st.binary(max_size=5) | st.sampled_from((b'"', b"\0", b"\r", b"\xff"))
        )
    return bytes(data)


@examples(200)
@given(data=damaged(ZEROVL))
@example(data=texts.HEAD + b"0.jpg,0," + b"x" * (17 << 20) + b",0\n")
@example(data=texts.HEAD + b'0.jpg,0,"' + b"x\n" * 200_000)
def test_a_damaged_csv_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    texts.pictures(tmp_path / "train")
    (tmp_path / "train_anno.csv").write_bytes(data)
    refused_or_read(tmp_path, "zerovl", "train_anno.csv")


@examples(200)
@given(data=damaged(TABLE))
@example(data=b"filepath\ttitle\n0.jpg\t" + b"x" * (17 << 20) + b"\n")
def test_a_damaged_table_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    texts.pictures(tmp_path)
    (tmp_path / "pairs.tsv").write_bytes(data)
    refused_or_read(tmp_path, "table", "pairs.tsv")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.sampled_from(("0.jpg", "\ud800")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
lines_of_json = st.lists(
    st.fixed_dictionaries(
        {"image": names | values, "caption": text | st.lists(text, max_size=3) | values},
        optional={"split": splits | values, "image_id": st.integers(0, 3) | values, "other": values},
    )
    | values,
    max_size=8,
)


def offered(line: Any) -> int:
    """Captions of a line; one that has none is a loss by itself."""
    captions = line.get("caption") if isinstance(line, dict) else None
    return max(1, len(captions)) if isinstance(captions, list) else 1


@examples(200)
@given(lines=lines_of_json)
def test_each_line_of_json_is_counted(lines: list[Any], tmp_path: Path) -> None:
    texts.pictures(tmp_path)
    first = {"image": "0.jpg", "caption": "zero"}
    without_split = [
        first,
        *({k: v for k, v in line.items() if k != "split"} if isinstance(line, dict) else line for line in lines),
    ]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in without_split))
    assert counted(read(tmp_path, "table")) >= len(without_split)
    assert counted(read(tmp_path, "table")) <= sum(map(offered, without_split))


@examples(200)
@given(
    lines=lines_of_json,
    cut=st.integers(0, 400),
    junk=st.binary(max_size=6),
    deep=st.sampled_from((0, 0, 50, 900, 5000)),
)
def test_damaged_lines_of_json_are_read_or_refused(
    lines: list[Any], cut: int, junk: bytes, deep: int, tmp_path: Path
) -> None:
    texts.pictures(tmp_path)
    written = "".join(
        f"{json.dumps(line)}\n" for line in [{"image": "0.jpg", "caption": "zero", "image_id": 1}, *lines]
    )
    line = f'{{"image": "1.jpg", "caption": "one", "image_id": {nested(deep)}, "split": {nested(deep)}}}\n'
    data = bytearray((written + line).encode())
    data[cut:cut] = junk
    (tmp_path / "pairs.jsonl").write_bytes(data)
    refused_or_read(tmp_path, "table", "pairs.jsonl")


@examples(25)
@given(data=damaged(TABLE))
def test_prepare_of_a_damaged_table_ends_with_counts_or_one_line(data: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "raw/a"
    folder.mkdir(parents=True, exist_ok=True)
    texts.pictures(folder)
    (folder / "pairs.tsv").write_bytes(data)
    shutil.rmtree(tmp_path / "data", ignore_errors=True)  # of the example before
    found = prepared(tmp_path)
    assert isinstance(found, Manifest) or "pairs.tsv" in found or "source 'a'" in found
