"""Broken and odd inputs: one clear line or a counted quarantine, nothing half-written, no hang, bounded memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import raw_sources
from tests.support.odd_inputs import parquet, pictures, tars, texts
from tests.support.odd_inputs.kind import Kind
from tests.support.odd_inputs.mutated import mutated
from tests.support.odd_inputs.prepared import bounded_memory, prepared
from tests.support.odd_inputs.table import KINDS, PAGE, with_table
from tests.support.paths import ROOT
from zerovl.data.manifest import Manifest


@pytest.fixture(autouse=True)
def _in_bounded_memory() -> Iterator[None]:
    with bounded_memory():
        yield


def test_the_bound_holds_after_a_higher_peak_too() -> None:
    """In a process of its own: a peak of half a gigabyte would be over the bound of this test."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this kernel forgets no peak")
    code = """
from tests.support.odd_inputs.prepared import bounded_memory

def take(megabytes):
    memory = bytearray(megabytes << 20)
    memory[::4096] = bytes([1]) * len(memory[::4096])

take(640)
with bounded_memory():
    take(64)
with bounded_memory():
    take(512)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("AssertionError"), done.stderr
    assert any("line 14" in line for line in lines), done.stderr


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.of}-{kind.what}".replace(" ", "_"))
def test_what_comes_of_it(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "raw/a").mkdir(parents=True)
    kind.write(tmp_path / "raw/a")
    found = prepared(tmp_path)
    if isinstance(found, str):
        assert (kind.outcome.pairs, kind.outcome.says in found) == (-1, True), found
        return
    info = found.splits["a", "train"]
    reasons = list(raw_sources.errors(found, "a").values())
    assert (info.pairs, info.broken) == (kind.outcome.pairs, kind.outcome.broken), reasons[:3]
    assert any(kind.outcome.says in reason for reason in reasons) or not info.broken


def test_the_documentation_has_them_all() -> None:
    """Made by `python -m tests.support.odd_inputs.table`."""
    assert len(KINDS) >= 64
    assert len({(kind.of, kind.what) for kind in KINDS}) == len(KINDS)
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page) == page
    assert f" {len(KINDS)} kinds" in page


def in_file(name: str, data: Callable[[], bytes], beside: str) -> Callable[[Path, random.Random], None]:
    """Write one mutated file, with whole pictures beside it."""

    def write(folder: Path, draw: random.Random) -> None:
        texts.pictures(folder / beside)
        (folder / name).write_bytes(mutated(data(), draw))

    return write


MUTATED = {
    "tar": in_file("0.tar", lambda: tars.THREE, ""),
    "csv": in_file("train_anno.csv", lambda: texts.row('2.jpg,2,"a, ""b""\n c",2\n'), "train"),
    "json": in_file("dataset.json", texts.third, "images"),
    "coco": in_file(
        "captions_train2017.json", lambda: json.dumps(texts.captions(), indent=1).encode() + b"\n", "train2017"
    ),
    "jsonl": in_file("train.jsonl", lambda: b'{"image": "0.jpg", "caption": ["zero", "null"]}\n' * 4, ""),
    "parquet": in_file("train.parquet", lambda: parquet.table(parquet.embedded(None)), ""),
    "tsv": in_file("train.tsv", lambda: b"filepath\ttitle\n0.jpg\tzero\n1.jpg\tone\n", ""),
}


@pytest.mark.parametrize("form", MUTATED)
def test_mutated_files(form: str, tmp_path: Path) -> None:
    for seed in range(16):
        root = tmp_path / str(seed)
        (root / "raw/a").mkdir(parents=True)
        MUTATED[form](root / "raw/a", random.Random(f"{form} {seed}"))
        found = prepared(root)
        assert isinstance(found, str) or sum(info.pairs + info.broken for info in found.splits.values()), seed


def test_mutated_pictures(tmp_path: Path) -> None:
    draw = random.Random(0)
    kinds = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
    whole = [pictures.JPEG, *(raw_sources.encoded(raw_sources.picture(1), kind) for kind in kinds)]
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 120)
    for number in range(1, 120):
        (tmp_path / f"raw/a/train/{number}.jpg").write_bytes(mutated(draw.choice(whole), draw))
    found = prepared(tmp_path)
    assert isinstance(found, Manifest)
    info = found.splits["a", "train"]
    assert info.pairs + info.broken == 120
    assert info.broken > 20
    assert json.dumps(list(raw_sources.errors(found, "a").values())).isascii()
