"""Tars that Hypothesis makes, shuffles and damages: every pair arrives or is counted, and nothing is raised."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support import raw_sources
from tests.support.fuzzing import examples
from tests.support.odd_inputs import tars
from tests.support.odd_inputs.prepared import bounded_memory, prepared
from zerovl.data.manifest import Manifest
from zerovl.data.raw.tar_captions import caption_reader, one_caption
from zerovl.data.raw.tar_samples import TarSample, read_samples
from zerovl.data.stated_samples import Stated
from zerovl.data.streams.addresses import open_stream
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.tar_stream import SampleRules, read_tar

PICTURE = raw_sources.jpeg(1)
KEYS = ("a", "a.1", "a.1.2", "a.b", "b", "f/a", "f.1/a.1", "2021.05.1", "\u00e9", "\udcff", "x" * 120)
CONTENT = {"jpg": PICTURE, "txt": b"a caption", "cls": b"3"}
RULES = SampleRules("web", caption_reader("", one_caption), 100)
BLOCK = tarfile.BLOCKSIZE

# Fields of a header: start, length. Source: POSIX.1-2008, pax, "ustar Interchange Format".
FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "user": (265, 32),
    "prefix": (345, 155),
}
NUMBERS = (
    b"7" * 11 + b"\0",
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"\x80" + bytes(10) + b"\1",
    b"-1\0",
    b"",
    b"0" * 12,
)
RECORDS = {
    "size": ("0", "-1", "99999999999999999999", "x", "9" * 5000),
    "path": ("", "/", "../a.jpg", "a.jpg", "a\0b.jpg", "y" * 300 + ".jpg"),
    "hdrcharset": ("BINARY", "x"),
    "mtime": ("nan", "1e999", "x"),
    "GNU.sparse.map": ("0,1", "x", "1"),
    "GNU.sparse.size": ("1", "x"),
    "GNU.sparse.offset": ("-1", "x"),
    "GNU.sparse.numbytes": ("1", "x"),
    "GNU.sparse.major": ("1",),
    "GNU.sparse.minor": ("0",),
    "comment": ("", "=", "9 =\n", "\u00e9"),
}

Members = list[tuple[str, str]]  # key and ending


def written(members: Members, form: int = tarfile.GNU_FORMAT, records: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for key, ending in members:
            header = tarfile.TarInfo(f"{key}.{ending}")
            header.size = len(CONTENT[ending])
            header.pax_headers = records or {}
            tar.addfile(header, io.BytesIO(CONTENT[ending]))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _in_bounded_memory() -> Iterator[None]:
    with bounded_memory():
        yield


endings = st.sampled_from((("jpg", "txt"), ("jpg", "txt"), ("jpg", "txt", "cls"), ("jpg",), ("txt",), ("cls",)))
members_of_tars = st.dictionaries(st.sampled_from(KEYS), endings, max_size=8).map(
    lambda tar: [(key, ending) for key, its in tar.items() for ending in its]
)


@st.composite
def damaged_tars(draw: st.DrawFn) -> bytes:
    """A tar whose headers say something else here and there, with the checksum of that or without, and maybe cut."""
    members, form = draw(members_of_tars), draw(st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))
    names = draw(st.lists(st.sampled_from(sorted(RECORDS)), max_size=3)) if form == tarfile.PAX_FORMAT else []
    data = bytearray(written(members, form, {name: draw(st.sampled_from(RECORDS[name])) for name in names}))
    starts = [at for at in range(0, len(data), BLOCK) if data[at + 257 : at + 262] == b"ustar"] or [0]
    for _ in range(draw(st.integers(0, 3))):
        at, name = draw(st.sampled_from(starts)), draw(st.sampled_from(sorted(FIELDS)))
        start, length = at + FIELDS[name][0], FIELDS[name][1]
        value = draw(
            st.sampled_from(b"0125673xgLKSXVDM\0").map(lambda kind: bytes([kind]))
            if name == "type"
            else st.sampled_from(NUMBERS) | st.binary(max_size=length)
        )
        data[start : start + length] = value.ljust(length, b"\0")[:length]
        if name != "checksum" and draw(st.booleans()):
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    cut = draw(st.none() | st.integers(0, len(data)))
    return bytes(data if cut is None else data[:cut])


def pairs(members: Members) -> set[str]:
    return {key for key, _ in members if {(key, "jpg"), (key, "txt")} <= set(members)}


def there(members: Members) -> set[str]:
    """Keys of the samples of a tar: the pairs, and what lacks a member and goes along with no other key."""
    keys = {key for key, _ in members}
    return pairs(members) | {key for key in keys if not any(key.startswith(f"{other}.") for other in keys)}


@examples(400)
@given(members=members_of_tars, order=st.randoms(use_true_random=False))
def test_every_pair_arrives_in_any_order(members: Members, order: random.Random, tmp_path: Path) -> None:
    order.shuffle(members)
    path = tmp_path / "0.tar"
    path.write_bytes(written(members))
    found = list(read_samples(str(path), path.name, lambda: None))
    assert Counter(sample.key for sample in found if sample.complete) == dict.fromkeys(pairs(members), 1)
    assert not [sample.problem for sample in found if sample.problem]
    assert Counter(sample.key for sample in found) == dict.fromkeys(there(members), 1)


def test_a_pair_arrives_whose_halves_lie_on_both_sides_of_the_one_it_goes_along_with(tmp_path: Path) -> None:
    path, halves = tmp_path / "0.tar", [("a.1", "jpg"), ("a.1", "txt")]
    between = [("a", "jpg"), ("a", "txt"), ("b", "jpg"), ("b", "txt")]
    for first, second in (halves, reversed(halves)):
        path.write_bytes(written([first, *between, second]))
        found = list(read_samples(str(path), path.name, lambda: None))
        assert [sample.key for sample in found if sample.complete] == ["a", "b", "a.1"]
        assert all(sample.complete for sample in found)


def streamed(members: Members, path: Path) -> tuple[list[str], Lost]:
    """Keys of the samples that arrive, and what is counted as lost."""
    path.write_bytes(written(members))
    lost = Lost()
    found = [sample.key for sample in read_tar(str(path), open_stream(str(path)), RULES, lost)]
    return [key.removeprefix(f"web-{path.name}-") for key in found], lost


@examples(300)
@given(members=members_of_tars, order=st.randoms(use_true_random=False))
def test_every_pair_is_streamed_or_counted(members: Members, order: random.Random, tmp_path: Path) -> None:
    """All of a sorted tar; in any other order as many are counted as do not arrive, which the other reader has all."""
    found, lost = streamed(sorted(members, key=".".join), tmp_path / "0.tar")
    assert Counter(found) == dict.fromkeys(pairs(members), 1)
    assert lost.total == len(there(members)) - len(found)
    order.shuffle(members)
    found, lost = streamed(members, tmp_path / "0.tar")
    assert len(found) == len(set(found))
    assert set(found) <= pairs(members)
    assert len(found) + lost.total == len(there(members))


NUMBERED: tuple[Members, ...] = (
    [("0", "jpg"), ("0", "txt"), ("0.1", "jpg"), ("0.1", "txt")],
    [("0.1.2", "jpg"), ("0.1", "jpg"), ("0", "jpg"), ("1", "jpg"), ("0.1.2", "txt"), ("0.1", "txt"), ("0", "txt")],
    [
        ("0", "jpg"),
        ("0", "txt"),
        ("0.1", "jpg"),
        ("0.2", "jpg"),
        ("1", "jpg"),
        ("0", "cls"),
        ("0.1", "txt"),
        ("0.2", "txt"),
    ],
    [("0", "jpg"), ("0", "txt"), ("1", "jpg"), ("1", "txt"), ("0", "cls"), ("0.1", "jpg")],
)


@pytest.mark.parametrize("members", NUMBERED)
def test_both_readers_count_what_lies_apart(members: Members, tmp_path: Path) -> None:
    found, lost = streamed(members, tmp_path / "0.tar")
    read = list(read_samples(str(tmp_path / "0.tar"), "0.tar", lambda: None))
    assert {sample.key for sample in read if sample.complete} == pairs(members)
    assert len(read) == len(there(members)) == len(found) + lost.total
    apart = sum(count for reason, count in lost.counts.items() if reason.startswith("its members do not lie together"))
    assert apart == len(pairs(members)) - len(found)


@examples(600)
@given(data=damaged_tars())
@example(data=tars.whole(*[tars.special("2", tarfile.XHDTYPE)] * 2000))
@example(data=tars.with_size(b"77777777777\0", tarfile.XHDTYPE))
@example(data=tars.with_size(b"77777777777\0", tarfile.GNUTYPE_LONGNAME))
def test_damage_is_counted_and_nothing_else_is_raised(data: bytes, tmp_path: Path) -> None:
    path, lost, whole = tmp_path / "0.tar", Lost(), 40
    path.write_bytes(data)
    found = list(read_samples(str(path), path.name, lambda: Stated(whole, "0.idx")))
    assert all(usable(sample, len(data)) for sample in found)
    if any("samples are lost" in (sample.problem or "") for sample in found):
        assert sum(bool(sample.key) or sample.origin == path.name for sample in found) == whole
    arrived = list(read_tar(str(path), open_stream(str(path)), RULES, lost))
    assert all(sample.captions for sample in arrived)
    if not arrived and data.strip(b"\0"):
        assert lost.total or not any(sample.complete for sample in found)


def usable(sample: TarSample, size: int) -> bool:
    picture = sample.picture
    return picture is None or 0 <= picture.offset <= picture.offset + (picture.size or 0) <= size


@examples(25)
@given(data=damaged_tars())
def test_prepare_ends_with_counts_or_one_line(data: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "raw/a"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "0.tar").write_bytes(data)
    shutil.rmtree(tmp_path / "data", ignore_errors=True)  # of the example before
    found = prepared(tmp_path)
    if not isinstance(found, Manifest):
        assert "source 'a'" in found
        return
    rows = raw_sources.rows(found, "a")
    info = found.splits["a", "train"]
    assert info.pairs == sum(row["error"] is None for row in rows)
    assert info.pairs + info.broken == len(rows) > 0
