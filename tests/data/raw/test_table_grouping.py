"""Rows of a picture lie anywhere in a table: grouping in bounded memory agrees with all rows in memory."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.layout import Source
from zerovl.data.raw.layouts import LAYOUTS
from zerovl.data.raw.records import Record

Rows = list[tuple[str, str]]  # (picture, caption)


def source(folder: Path, rows: Rows) -> Source:
    lines = (json.dumps({"image": image, "caption": caption}) for image, caption in rows)
    (folder / "train.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return Source("a", str(folder), LAYOUTS["table"], ("train",), "test")


def read(a: Source, folder: Path) -> Iterator[Record]:
    return a.layout.read(a, "train", 100, FetchedFiles(folder / "fetched")).records


def all_in_memory(rows: Rows) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for image, caption in rows:
        grouped.setdefault(image, []).append(caption)
    return grouped


@pytest.mark.parametrize("seed", range(8))
def test_grouping_agrees_with_all_rows_in_memory(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows = [(f"{draw.randrange(1 + 4 * seed)}.jpg", f"caption {number}") for number in range(60)]
    if seed % 2:
        rows.sort(key=lambda row: row[0])
    found = list(read(source(tmp_path, rows), tmp_path))
    assert all(record.error is None for record in found)
    by_name = {record.origin.split(" ")[0]: list(record.captions) for record in found}
    assert by_name == all_in_memory(rows)
    assert len(found) == len(by_name)
    caption_ids = [number for record in found for number in record.caption_ids]
    assert len(set(caption_ids)) == 60


def test_a_picture_is_given_before_later_rows_are_read_where_its_rows_lie_together(tmp_path: Path) -> None:
    rows = [(f"{number // 2}.jpg", "a caption") for number in range(3000)]
    a = source(tmp_path, rows)
    records = read(a, tmp_path)
    first = next(records)
    text = (tmp_path / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(text[:100_000])  # what lies further than a buffer ahead is not read yet
    assert (first.captions, sum(1 for _ in records) < 1499) == (("a caption", "a caption"), True)


def test_an_empty_table_has_no_records(tmp_path: Path) -> None:
    [broken] = read(source(tmp_path, [("a.jpg", "")]), tmp_path)
    assert broken.error == "empty caption"
    (tmp_path / "train.csv").write_text("image,caption\n")
    (tmp_path / "train.jsonl").unlink()
    assert list(read(Source("a", str(tmp_path), LAYOUTS["table"], ("train",), "test"), tmp_path)) == []
