"""Tars that stay on S3: the batches of packed ones; each object is fetched once for its index and once a node."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.raw.test_in_place import WEB, write_good
from tests.support import raw_sources, s3
from tests.support.shard_fixture import WordTokenizer
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.loader import MicroBatch, train_batches
from zerovl.data.batches.sampling import training_sampler
from zerovl.data.batches.sides import Pictures
from zerovl.data.manifest import Manifest
from zerovl.data.raw import s3_source
from zerovl.data.shards import ShardReader
from zerovl.data.split_reader import SplitReader
from zerovl.errors import ZeroVLError
from zerovl.params import DataParams, MachineParams, Params, TrainParams
from zerovl.params.machine import ShardCacheParams
from zerovl.training.shard_place import ShardPlace, shard_place
from zerovl.workspace import Workspace

TRAIN = TrainParams(batch_size=4, micro_batch=4, epochs=2.0, seed=3, shuffle="blocks", block_shards=1)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Objects that `prepare` fetched, by name."""
    names: list[str] = []

    def fetch(uri: str, path: Path) -> None:
        names.append(uri.rpartition("/")[2])
        usual(uri, path)

    usual = s3_source.fetch
    monkeypatch.setattr(s3_source, "fetch", fetch)
    monkeypatch.setenv("ZEROVL_WORKERS", "1")
    return names


def upload(folder: Path, bucket: str) -> dict[str, Any]:
    """Put tars on S3; returns the source that they make there."""
    for path in folder.rglob("*.tar"):
        s3.client().upload_file(str(path), bucket, f"web/{path.relative_to(folder)}")
    return {"name": "web", "path": f"s3://{bucket}/web", "tars": "in_place"}


def place_of(root: Path, manifest: Manifest, cache: Path, shards: str = "") -> ShardPlace:
    machine = MachineParams(shards=shards, shard_cache=ShardCacheParams(folder=str(cache)))
    params = Params(data=DataParams(raw="raw"), train=TRAIN, machine=machine)
    return shard_place(params, Workspace(root), manifest, training_sampler(TRAIN, manifest))


def batches(place: ShardPlace) -> list[MicroBatch]:
    parts = train_batches(
        manifest=place.manifest,
        shards=place.reader(),
        sampler=place.sampler,
        tokenize=WordTokenizer(),
        images=Pictures(TrainTransform(16, TRAIN.augment)),
        augment=TRAIN.augment,
        micro_batch=4,
        seed=3,
        rank=0,
        world_size=1,
        ahead=place.ahead(),
    )
    with parts:
        return [part for step in parts for part in step.micro_batches]


def assert_equal(found: list[MicroBatch], expected: list[MicroBatch]) -> None:
    assert [part.keys for part in found] == [part.keys for part in expected]
    for part, other in zip(found, expected, strict=True):
        assert torch.equal(part.images, other.images)
        assert torch.equal(part.input_ids, other.input_ids)


def read_all(manifest: Manifest, shards: ShardReader) -> list[bytes]:
    reader = SplitReader(manifest, shards, "train")
    return [reader.sample("web", row).image for row in range(manifest.pairs("web", "train"))]


def test_batches_of_tars_on_s3_on_the_disk_and_packed(tmp_path: Path, moto_bucket: str, fetched: list[str]) -> None:
    raw, cache = tmp_path / "raw/web/train", tmp_path / "cache"
    for number in range(3):
        write_good(raw / f"{number}.tar", 10 * number, 4)
    packed = raw_sources.run_sources(tmp_path, WEB, shard_samples=4)
    expected = batches(place_of(tmp_path, packed, cache))
    local = raw_sources.run_sources(tmp_path, WEB | {"tars": "in_place"})
    assert_equal(batches(place_of(tmp_path, local, cache)), expected)
    assert not cache.exists()
    copies = f"s3://{moto_bucket}/shards"
    for path in (tmp_path / "data/shards").rglob("*.*"):
        s3.client().upload_file(str(path), moto_bucket, f"shards/{path.relative_to(tmp_path / 'data/shards')}")
    place = place_of(tmp_path, local, tmp_path / "small", copies)  # small shards on S3, the tars at hand
    assert place.said[0].startswith(f"{copies}, whole shards through {tmp_path / 'small'}/")
    assert_equal(batches(place), expected)
    shards = local.splits["web", "train"].shards
    assert {path.stem for path in (tmp_path / "small").iterdir()} == {shard.sha256 for shard in shards}
    source = upload(tmp_path / "raw/web", moto_bucket)
    shutil.rmtree(tmp_path / "raw")
    remote = raw_sources.run_sources(tmp_path, source)
    assert remote.digest == local.digest  # where tars lie changes nothing of what is learned
    assert fetched == ["0.tar", "1.tar", "2.tar"]
    place = place_of(tmp_path, remote, cache)
    assert place.said[0].startswith(f"tars in place on s3://, whole shards through {cache}/")
    assert_equal(batches(place), expected)
    assert {path.stem for path in cache.iterdir()} == {shard.tar for shard in remote.splits["web", "train"].shards}


def test_an_object_that_goes_once_it_was_listed(
    tmp_path: Path, moto_bucket: str, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_good(tmp_path / "objects/0.tar", 0)
    write_good(tmp_path / "objects/1.tar", 10)
    source = upload(tmp_path / "objects", moto_bucket)
    listed = s3_source.object_states(source["path"])
    s3.client().delete_object(Bucket=moto_bucket, Key="web/1.tar")
    monkeypatch.setattr(s3_source, "object_states", lambda uri: listed)
    with pytest.raises(ZeroVLError, match=rf"s3://{moto_bucket}/web/1\.tar: cannot fetch it"):
        raw_sources.run_sources(tmp_path, source)


def test_a_new_and_a_changed_object(tmp_path: Path, moto_bucket: str, fetched: list[str]) -> None:
    folder = tmp_path / "objects"
    for number in range(2):
        write_good(folder / f"{number}.tar", 10 * number)
    before = raw_sources.run_sources(tmp_path, upload(folder, moto_bucket))
    pictures = read_all(before, place_of(tmp_path, before, tmp_path / "cache").reader())
    assert pictures == read_all(before, place_of(tmp_path, before, tmp_path / "cache").direct_reader())
    write_good(folder / "2.tar", 20)
    fetched.clear()
    shutil.copy(folder / "2.tar", tmp_path / "2.tar")
    (folder / "0.tar").unlink()
    (folder / "1.tar").unlink()
    manifest = raw_sources.run_sources(tmp_path, upload(folder, moto_bucket))
    assert fetched == ["2.tar"]
    assert read_all(manifest, place_of(tmp_path, manifest, tmp_path / "cache").reader())[:6] == pictures

    write_good(folder / "0.tar", 40)  # of the same size, under the name of another
    upload(folder, moto_bucket)
    changed = place_of(tmp_path, manifest, tmp_path / "other")
    with pytest.raises(ZeroVLError, match=rf"s3://{moto_bucket}/web/0\.tar: has changed since prepare indexed it"):
        read_all(manifest, changed.direct_reader())
    with pytest.raises(ZeroVLError, match=rf"s3://{moto_bucket}/web/0\.tar: its bytes have sha256"):
        read_all(manifest, changed.reader())
