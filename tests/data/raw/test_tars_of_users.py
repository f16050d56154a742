"""Tars as users have them: keys with dots, unsorted, of two runs; every sample arrives once."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path

import pytest

from tests.support import raw_sources
from zerovl.data.raw import tar_samples
from zerovl.data.raw.tar_ids import ImageIds, _joined
from zerovl.errors import ZeroVLError

Members = list[tuple[str | tarfile.TarInfo, bytes]]


def read(path: Path) -> list[tar_samples.TarSample]:
    return list(tar_samples.read_samples(str(path), path.name, lambda: None))


def captions(found: list[tar_samples.TarSample]) -> dict[str, str]:
    return {sample.key: (sample.text or b"").decode() for sample in found if sample.complete and not sample.problem}


def test_keys_with_dots_keep_their_samples(tmp_path: Path) -> None:
    keys = [f"2021.05.{number:04d}" for number in range(6)]
    raw_sources.write_tar(tmp_path / "raw/w/0.tar", raw_sources.samples(keys))
    rows = raw_sources.rows(raw_sources.run_prepare(tmp_path), "w")
    assert [(row["captions"], row["error"]) for row in rows] == [([f"caption of {key}"], None) for key in keys]
    assert len({row["image_id"] for row in rows}) == 6


def test_members_that_go_along_with_a_sample(tmp_path: Path) -> None:
    own = raw_sources.sample("0001", 1)
    mask = raw_sources.encoded(raw_sources.picture(9), "PNG")
    members = sorted(
        [*own, ("0001.seg.png", mask), ("0001.cls.json", b"3"), ("0001.emb.npy", b"x")], key=lambda m: str(m[0])
    )
    raw_sources.write_tar(tmp_path / "0.tar", [*members, *raw_sources.sample("0002", 2)])
    found = read(tmp_path / "0.tar")
    assert [(sample.key, sample.complete, sample.problem) for sample in found] == [
        ("0001", True, None),
        ("0002", True, None),
    ]
    assert found[0].picture is not None
    assert found[0].picture.size == len(own[0][1])
    assert json.loads(found[0].description or b"")["caption"] == "a caption"


def test_pairs_whose_keys_begin_with_anothers_are_pairs(tmp_path: Path) -> None:
    """`photo.1.jpg` and `photo.1.txt` beside `photo.jpg`, in whatever order; a mask and a number are none."""
    pairs = raw_sources.samples(["photo", "photo.1", "photo.1.2", "zebra"])
    mask = ("photo.seg.png", raw_sources.encoded(raw_sources.picture(9), "PNG"))
    members: Members = [*pairs, mask, ("photo.cls.json", b"3"), ("photo.emb.npy", b"x")]
    orders = {
        "sorted": sorted(members, key=lambda member: str(member[0])),
        "behind": [*pairs[:9], *members[-3:], *pairs[9:]],
        "by kind": sorted(pairs[:9] + members[-3:], key=lambda m: str(m[0]).rpartition(".")[2]) + pairs[9:],
        "far apart": sorted(members, key=lambda member: str(member[0]).rpartition(".")[2]),
    }
    expected = {key: f"caption of {key}" for key in ("photo", "photo.1", "photo.1.2", "zebra")}
    for order, ordered in orders.items():
        raw_sources.write_tar(tmp_path / "0.tar", ordered)
        found = read(tmp_path / "0.tar")
        assert captions(found) == expected, order
        assert len(found) == 4, order
        sizes = {sample.key: sample.picture.size for sample in found if sample.picture}
        assert sizes == {str(name)[:-4]: len(data) for name, data in pairs if str(name).endswith(".jpg")}, order
    raw_sources.write_tar(tmp_path / "raw/w/0.tar", orders["behind"])
    rows = raw_sources.rows(raw_sources.run_prepare(tmp_path), "w")
    assert [(row["captions"], row["error"]) for row in rows] == [([text], None) for text in expected.values()]


def test_a_pair_behind_another_that_cannot_be_used_is_counted(tmp_path: Path) -> None:
    large = ("photo.1.txt", b"x" * ((16 << 20) + 1))
    raw_sources.write_tar(
        tmp_path / "0.tar", [*raw_sources.samples(["photo"]), ("photo.1.jpg", raw_sources.jpeg(1)), large]
    )
    assert [(sample.key, bool(sample.problem)) for sample in read(tmp_path / "0.tar")] == [
        ("photo", False),
        ("photo.1", True),
    ]


@pytest.mark.parametrize("order", ["by extension", "shuffled"])
def test_unsorted_is_read_like_sorted(tmp_path: Path, caplog: pytest.LogCaptureFixture, order: str) -> None:
    members = raw_sources.samples([f"{number:03d}" for number in range(20)])
    if order == "shuffled":  # with a .json too, some pictures would seem complete before their .txt comes
        members = [member for member in members if not str(member[0]).endswith(".json")]
    raw_sources.write_tar(tmp_path / "sorted.tar", members)
    expected = captions(read(tmp_path / "sorted.tar"))
    assert "do not lie together" not in caplog.text
    if order == "shuffled":
        random.Random(3).shuffle(members)
    else:
        members.sort(key=lambda member: str(member[0]).rpartition(".")[2])
    raw_sources.write_tar(tmp_path / "unsorted.tar", members)
    found = read(tmp_path / "unsorted.tar")
    assert captions(found) == expected
    assert len(expected) == 20
    assert "tar --sort=name" in caplog.text


def test_unsorted_and_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_samples, "_HELD", 10 * tar_samples._HELD_EACH)
    members = raw_sources.samples([f"{number:03d}" for number in range(20)])
    lonely: Members = [(f"a{number:03d}.txt", b"no picture") for number in range(30)]
    raw_sources.write_tar(tmp_path / "sorted.tar", [*lonely, *members])
    found = read(tmp_path / "sorted.tar")  # what waits in vain is let go
    assert (len(captions(found)), sum(not sample.complete for sample in found)) == (20, 30)
    first = [member for member in members if str(member[0]).endswith(".jpg")]
    rest = [member for member in members if not str(member[0]).endswith(".jpg")]
    raw_sources.write_tar(tmp_path / "unsorted.tar", [*first[:5], *rest, *first[5:]])
    with pytest.raises(ZeroVLError, match=r"unsorted\.tar: .* tar --sort=name -cf"):
        read(tmp_path / "unsorted.tar")


def test_two_runs_in_one_source_have_distinct_ids(tmp_path: Path) -> None:
    keys = [f"{number:09d}" for number in range(5)]
    words = ["red", "blue"]
    raw_sources.write_tar(tmp_path / "raw/w/train/00000.tar", raw_sources.samples([*keys, *words]))
    raw_sources.write_tar(tmp_path / "raw/w/train/00001.tar", raw_sources.samples([*keys, *words, "000000007"]))
    rows = raw_sources.rows(raw_sources.run_prepare(tmp_path), "w")
    assert [row["error"] for row in rows] == [None] * 15
    ids = [row["image_id"] for row in rows]
    assert (ids[:5], ids[-1]) == ([0, 1, 2, 3, 4], 7)  # the first run keeps its numbers, and so does what is new
    assert len(set(ids)) == len({caption_id for row in rows for caption_id in row["caption_ids"]}) == 15


def test_numbers_of_earlier_tars_are_known_however_many() -> None:
    ids = ImageIds(0)
    for tar in range(30):
        ids.next_tar(f"{tar}.tar")
        assert [ids.of({}, str(100 * tar + each)) for each in (0, 99)] == [100 * tar, 100 * tar + 99]
    assert len(ids._ends) <= 2 * 30
    ids.next_tar("again.tar")
    again = [ids.of({}, str(number)) for number in (0, 50, 1234)]
    assert not set(again) & set(range(3000))
    assert ids.of({}, "3000") == 3000
    assert ids.of({"image_id": 5}, "0") == 5


def test_ranges_are_joined_like_sets() -> None:
    generator = random.Random(0)
    for _ in range(200):
        ends: list[int] = []
        members: set[int] = set()
        for _ in range(6):
            low = generator.randrange(30)
            high = low + generator.randrange(1, 8)
            ends = _joined(ends, low, high)
            members |= set(range(low, high))
        assert {number for a, b in zip(ends[::2], ends[1::2], strict=True) for number in range(a, b)} == members
        assert ends == sorted(set(ends))


@pytest.mark.parametrize("tars", ["packed", "in_place"])
def test_heic_in_a_tar_is_said_and_does_not_stand_in_the_way_of_a_jpeg(tmp_path: Path, tars: str) -> None:
    members = [("0.heic", b"x"), *raw_sources.sample("0", 0), ("8.heic", b"x"), ("8.txt", b"of a telephone")]
    members += [*raw_sources.sample("9", 9), ("9.HEIF", b"x")]
    raw_sources.write_tar(tmp_path / "w/0.tar", members)
    manifest = raw_sources.run_sources(tmp_path, {"name": "w", "path": "w", "tars": tars})
    assert manifest.pairs("w", "train") == 2
    (reason,) = raw_sources.errors(manifest, "w").values()
    assert reason.startswith("HEIC is not read; make it one of JPEG, PNG")
