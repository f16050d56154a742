"""Tars that stay where they lie: the samples of packed ones, each tar read once, and changed ones found."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support import raw_sources
from zerovl.data import placed_tars
from zerovl.data.manifest import Manifest
from zerovl.data.open_shards import ShardFiles, open_shards
from zerovl.data.placed_tars import TarPlace, read_catalogue, write_catalogue
from zerovl.data.raw import in_place
from zerovl.data.raw.tar_index import TarTask
from zerovl.data.shards import FileRanges, Sample, ShardReader
from zerovl.data.split_reader import SplitReader
from zerovl.descriptors import open_files_limit
from zerovl.errors import ZeroVLError
from zerovl.params import MachineParams
from zerovl.workspace import Workspace

WEB: dict[str, Any] = {"name": "web", "path": "raw/web"}
ROW = {"shard", "offset", "size", "bytes", "recoded", "width", "height"}  # columns that say how a sample is stored


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_WORKERS", "1")


@pytest.fixture
def read_tars(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tars that were read for their index, as they are."""
    names: list[str] = []

    def index_tar(task: TarTask) -> None:
        names.append(task.name)
        usual(task)

    usual = in_place.index_tar
    monkeypatch.setattr(in_place, "index_tar", index_tar)
    return names


def turned(seed: int) -> bytes:
    """A picture that lies on its side and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return raw_sources.encoded(raw_sources.picture(seed), "PNG", exif=exif)


def write_odd(path: Path, first: int) -> None:
    """Samples of every kind: kept bytes, recoded ones, several captions, broken pictures and captions."""
    own = {
        "image_id": first + 900,
        "captions": ["one", " two ", ""],
        "caption_ids": [1000 * first + n for n in range(3)],
    }
    raw_sources.write_tar(
        path,
        [
            *raw_sources.sample(f"{first:05d}", first),
            (f"{first + 1:05d}.png", turned(first + 1)),
            (f"{first + 1:05d}.txt", b"turned"),
            (f"{first + 2:05d}.jpg", b"no picture"),
            (f"{first + 2:05d}.txt", b"broken"),
            (f"{first + 3:05d}.jpg", raw_sources.jpeg(first + 3)),
            (f"{first + 4:05d}.jpg", raw_sources.jpeg(first + 4)),
            (f"{first + 4:05d}.json", json.dumps(own).encode()),
            *raw_sources.sample(f"caf\udce9{first}", first + 5),
        ],
    )


def write_good(path: Path, first: int, count: int = 3) -> None:
    raw_sources.write_tar(
        path, [member for n in range(first, first + count) for member in raw_sources.sample(f"{n:05d}", n, f"word {n}")]
    )


def samples(root: Path, manifest: Manifest, split: str = "train") -> list[tuple[Sample, Image.Image]]:
    reader = SplitReader(manifest, ShardReader(root / "data/shards"), split)
    return [reader.read("web", row) for row in range(manifest.pairs("web", split))]


def both(root: Path, **settings: Any) -> tuple[Manifest, list[Any], Manifest, list[Any]]:
    """Manifest and samples of tars in place, then of the same ones packed."""
    split = settings.pop("split", "train")
    placed = raw_sources.run_sources(root, WEB | {"tars": "in_place"}, **settings)
    found = raw_sources.rows(placed, "web", split), samples(root, placed, split)
    packed = raw_sources.run_sources(root, WEB, **settings)
    return placed, [*found], packed, [raw_sources.rows(packed, "web", split), samples(root, packed, split)]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    """Rows but for how a sample is stored; samples with equal pixels, and equal bytes where packing keeps them."""
    assert len(found[0]) == len(expected[0])
    for row, other in zip(found[0], expected[0], strict=True):
        assert {k: v for k, v in row.items() if k not in ROW} == {k: v for k, v in other.items() if k not in ROW}
        assert (row["width"], row["height"]) == (other["width"], other["height"])
    for (sample, picture), (packed, stored), row in zip(
        found[1], expected[1], [row for row in expected[0] if row["error"] is None], strict=True
    ):
        assert (sample.key, sample.captions, sample.caption_ids) == (packed.key, packed.captions, packed.caption_ids)
        assert (sample.image_id, sample.source) == (packed.image_id, packed.source)
        if row["recoded"] is None:
            assert sample.image == packed.image
            assert picture.tobytes() == stored.tobytes()
        else:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=95, subsampling="4:4:4")
            assert buffer.getvalue() == packed.image  # the pixels are those that packing wrote as JPEG


def test_samples_are_those_of_packed_tars(tmp_path: Path) -> None:
    write_odd(tmp_path / "raw/web/train/0.tar", 10)
    write_odd(tmp_path / "raw/web/train/1.tar", 20)
    write_good(tmp_path / "raw/web/valid/0.tar", 10)
    placed, found, _, expected = both(tmp_path)
    assert [row["error"] for row in found[0]].count(None) == 8
    assert_same(found, expected)
    info = placed.splits["web", "train"]
    assert [shard.samples for shard in info.shards] == [4, 4]
    assert (info.pairs, info.broken) == (8, 6)


def test_filters_and_a_drawn_split_work_as_on_packed_tars(tmp_path: Path) -> None:
    write_good(tmp_path / "raw/web/0.tar", 0, 12)
    write_good(tmp_path / "raw/web/1.tar", 6, 12)  # six pictures are there twice
    raw_sources.write_tar(
        tmp_path / "raw/web/2.tar",
        [("90.png", turned(90)), ("90.txt", b"lies"), *raw_sources.sample("91", 91, "far too many words here")],
    )
    settings = {
        "filters": {"duplicates": "exact", "max_caption_words": 3},
        "draw_valid": {"fraction": 0.3, "near_distance": 0},
    }
    for split in ("train", "valid"):
        placed, found, packed, expected = both(tmp_path, split=split, **settings)
        assert_same(found, expected)
        assert {key: (info.pairs, info.captions) for key, info in placed.splits.items()} == {
            key: (info.pairs, info.captions) for key, info in packed.splits.items()
        }
    assert 0 < placed.pairs("web", "valid") < placed.pairs("web", "train") < 19


def test_a_new_tar_costs_one_tar(tmp_path: Path, read_tars: list[str]) -> None:
    source = WEB | {"tars": "in_place"}
    for number in range(3):
        write_good(tmp_path / f"raw/web/{number}.tar", 10 * number)
    raw_sources.run_sources(tmp_path, source)
    assert read_tars == ["0.tar", "1.tar", "2.tar"]
    before = raw_sources.all_bytes(tmp_path / "data/shards")
    write_good(tmp_path / "raw/web/3.tar", 30)
    read_tars.clear()
    raw_sources.run_sources(tmp_path, source)
    assert read_tars == ["3.tar"]
    after = raw_sources.all_bytes(tmp_path / "data/shards")
    assert {name: after[name] for name in before if name != "tars.json"} == {
        name: data for name, data in before.items() if name != "tars.json"
    }
    read_tars.clear()
    write_good(tmp_path / "raw/web/1.tar", 50)  # another one, of the same size
    os.utime(tmp_path / "raw/web/2.tar", (1, 1))  # touched
    manifest = raw_sources.run_sources(tmp_path, source)
    assert read_tars == ["1.tar", "2.tar"]
    assert [row["image_id"] for row in raw_sources.rows(manifest, "web")] == [
        0,
        1,
        2,
        50,
        51,
        52,
        *range(20, 23),
        30,
        31,
        32,
    ]


def test_an_interrupted_prepare_goes_on(tmp_path: Path, read_tars: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    source = WEB | {"tars": "in_place"}
    for number in range(3):
        write_good(tmp_path / f"raw/web/{number}.tar", 10 * number)
    usual = in_place.index_tar

    def killed(task: TarTask) -> None:
        if task.name == "2.tar":
            raise KeyboardInterrupt
        usual(task)

    with monkeypatch.context() as patch:
        patch.setattr(in_place, "index_tar", killed)
        with pytest.raises(KeyboardInterrupt):
            raw_sources.run_sources(tmp_path, source)
    assert read_tars == ["0.tar", "1.tar"]
    manifest = raw_sources.run_sources(tmp_path, source)
    assert read_tars == ["0.tar", "1.tar", "2.tar"]
    assert manifest.pairs("web", "train") == 9


def test_tars_that_cannot_stay_are_packed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_good(tmp_path / "raw/web/0.tar", 0)
    one, two = raw_sources.sample("10", 10), raw_sources.sample("11", 11)
    raw_sources.write_tar(tmp_path / "raw/web/1.tar", [one[0], two[0], one[2], two[2]])
    write_good(tmp_path / "raw/web/2.tar", 20)
    whole = (tmp_path / "raw/web/2.tar").read_bytes()
    with tarfile.open(tmp_path / "raw/web/2.tar") as tar:
        last = max(member.offset for member in tar)
    (tmp_path / "raw/web/2.tar").write_bytes(whole[:last])
    write_good(tmp_path / "raw/web/3.tar", 30)
    placed, found, _, expected = both(tmp_path, shard_samples=2)
    assert_same(found, expected)
    shards = placed.splits["web", "train"].shards
    assert [(shard.samples, shard.tar is not None) for shard in shards] == [
        (3, True),
        (2, False),
        (2, False),
        (1, False),
        (3, True),
    ]
    assert "1.tar: is packed, and not used in place: its samples do not lie together" in caplog.text
    assert "2.tar: is packed, and not used in place: truncated tar" in caplog.text


def test_a_changed_tar_is_named_with_the_fix(tmp_path: Path) -> None:
    tar = tmp_path / "raw/web/0.tar"
    write_good(tar, 0)
    manifest = raw_sources.run_sources(tmp_path, WEB | {"tars": "in_place"})
    catalogue = json.loads((tmp_path / "data/shards/tars.json").read_text())
    assert [value["path"] for value in catalogue.values()] == ["raw/web/0.tar"]  # relative to the project
    shutil.copytree(tmp_path / "data", tmp_path / "copy/data")
    expected = [sample.image for sample, _ in samples(tmp_path, manifest)]
    for shards in ("", str(tmp_path / "data/shards")):  # a copy of a revision, and shards that are none of it
        machine, copy = MachineParams(shards=shards), Workspace(tmp_path / "copy")
        reader = SplitReader(manifest, open_shards(manifest, "train", machine, copy, tmp_path), "train")
        assert [reader.sample("web", row).image for row in range(3)] == expected
    whole = bytearray(tar.read_bytes())
    whole[600] ^= 1
    for changed, reason in (
        (bytes(whole), "has changed since prepare indexed it .*other bytes.*dvc repro -f prepare"),
        (bytes(whole[:700]), r"has changed since prepare indexed it \(.* bytes expected at byte 512"),
    ):
        tar.write_bytes(changed)
        with pytest.raises(ZeroVLError, match=rf"raw/web/0\.tar: {reason}"):
            samples(tmp_path, manifest)
    root = str(tmp_path / "data/shards")
    with pytest.raises(ZeroVLError, match=r"raw/web/0\.tar: has 700 bytes, and had .* when prepare indexed it"):
        ShardFiles.of_split(manifest, "train", root, tmp_path)
    tar.unlink()
    with pytest.raises(ZeroVLError, match=r"raw/web/0\.tar: is not there, and was when prepare indexed it"):
        ShardFiles.of_split(manifest, "train", root, tmp_path)
    with pytest.raises(ZeroVLError, match=r"raw/web/0\.tar: no such tar.*dvc checkout"):
        samples(tmp_path, manifest)
    (tmp_path / "data/shards/tars.json").unlink()
    with pytest.raises(ZeroVLError, match=r"tars\.json: cannot be read"):
        samples(tmp_path, manifest)


def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="equal_pictures together puts several"):
        raw_sources.run_sources(tmp_path, WEB | {"tars": "in_place", "equal_pictures": "together"})
    raw_sources.write_zerovl(tmp_path / "raw/web", "train", 1)
    with pytest.raises(ZeroVLError, match="tars is 'in_place', which its layout zerovl does not use"):
        raw_sources.run_sources(tmp_path, WEB | {"tars": "in_place"})


@pytest.mark.parametrize("part", [1, 64, 1 << 20])
def test_a_catalogue_of_any_size_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    tars = {f"{number:064x}": TarPlace(f"raw/{number}.tar", number) for number in range(3)}
    write_catalogue(tmp_path, tars)
    monkeypatch.setattr(placed_tars, "_PART", part)
    assert read_catalogue(FileRanges(str(tmp_path)), str(tmp_path)) == tars


def test_prepare_may_open_many_tars(tmp_path: Path) -> None:
    write_good(tmp_path / "raw/web/0.tar", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 512
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        raw_sources.run_sources(tmp_path, WEB | {"tars": "in_place"})
        assert open_files_limit() > low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
