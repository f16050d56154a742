"""Raw tars on S3: fetched one after another, and gone as soon as they are packed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import raw_sources, s3
from tests.support.raw_sources import run_sources
from zerovl.data.raw import s3_source, webdataset
from zerovl.errors import ZeroVLError


@pytest.fixture(autouse=True)
def _no_client_of_before() -> Iterator[None]:
    s3_source._bucket.cache_clear()
    yield
    s3_source._bucket.cache_clear()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_source_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto_bucket: str, workers: str) -> None:
    """Against a real server; each fetched tar is gone as soon as it is packed."""
    monkeypatch.setenv("ZEROVL_WORKERS", workers)
    client = s3.client()
    for shard in range(3):
        path = tmp_path / f"local/w/train/0000{shard}.tar"
        raw_sources.write_tar(
            path, [m for n in range(5) for m in raw_sources.sample(f"0000{shard}000{n}", 10 * shard + n)]
        )
        client.upload_file(str(path), moto_bucket, f"some/prefix/train/0000{shard}.tar")
    client.put_object(Bucket=moto_bucket, Key="some/prefix-of-another/0.tar", Body=b"")
    place = f"s3://{moto_bucket}/some/prefix"
    remote = run_sources(tmp_path, {"name": "w", "path": place}, shard_samples=4)
    assert [row["image_id"] for row in raw_sources.rows(remote, "w")][4:6] == [4, 10000]
    assert remote.pairs("w", "train") == 15
    assert raw_sources.rows(remote, "w")[0]["origin"] == f"{place}/train/00000.tar:000000000"
    assert not list((tmp_path / "data/shards").glob(".*"))
    monkeypatch.setenv("ZEROVL_WORKERS", "1")  # packs the same, and two more processes would import for seconds
    local = run_sources(tmp_path, {"name": "w", "path": "local/w"}, shard_samples=4)
    assert local.digest == remote.digest
    with pytest.raises(ZeroVLError, match=r"s3://nowhere/x: .*NoSuchBucket.*AWS_ENDPOINT_URL"):
        run_sources(tmp_path, {"name": "w", "path": "s3://nowhere/x"})
    with pytest.raises(ZeroVLError, match=f"source 'w': s3://{moto_bucket}/void"):
        run_sources(tmp_path, {"name": "w", "path": f"s3://{moto_bucket}/void"})


@pytest.mark.parametrize("tars", ["packed", "in_place"])
def test_a_prefix_is_listed_once_a_prepare(
    tars: str, tmp_path: Path, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both splits, and a tar in another folder; a request lists 1,000 objects."""
    monkeypatch.setenv("ZEROVL_WORKERS", "1")
    client = s3.client()
    for number, folder in enumerate(("train", "valid", "other")):
        path = tmp_path / f"{folder}.tar"
        raw_sources.write_tar(path, raw_sources.sample(str(number), number))
        client.upload_file(str(path), moto_bucket, f"web/{folder}/0.tar")
    listed, asked = list[str](), list[str]()
    monkeypatch.setattr(webdataset, "stated_beside", asked.append)

    def note(params: dict[str, Any], **_: object) -> None:
        listed.append(params["query_string"]["prefix"])

    s3_source._bucket(moto_bucket).client.meta.events.register("before-call.s3.ListObjectsV2", note)
    manifest = run_sources(tmp_path, {"name": "w", "path": f"s3://{moto_bucket}/web", "tars": tars})
    assert [manifest.pairs("w", split) for split in ("train", "valid")] == [1, 1]
    assert listed == ["web/"]
    run_sources(tmp_path, {"name": "w", "path": f"s3://{moto_bucket}/web", "tars": tars})
    assert listed == ["web/"] * 2  # what is there by then
    assert not asked  # nothing lies beside the tars, as the listing says


def test_fetched_tars_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in range(6):
        raw_sources.write_tar(
            tmp_path / f"store/{shard}.tar", [m for n in range(3) for m in raw_sources.sample(f"{shard}{n}", n)]
        )
    folder = tmp_path / "data/shards/.fetched"
    most = 0

    def fetch(uri: str, path: Path) -> None:
        nonlocal most
        path.write_bytes((tmp_path / "store" / Path(uri).name).read_bytes())
        most = max(most, len(list(folder.iterdir())))

    monkeypatch.setattr(s3_source, "object_states", lambda uri: {f"{uri}/{shard}.tar": "" for shard in range(6)})
    monkeypatch.setattr(s3_source, "fetch", fetch)
    manifest = run_sources(tmp_path, {"name": "w", "path": "s3://store/x"}, shard_samples=4)
    assert (manifest.pairs("w", "train"), raw_sources.errors(manifest, "w")) == (18, {})
    assert most == 2  # the one being packed, and the next
    assert not folder.exists()


def test_s3_source_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "boto3.exceptions", None)
    s3_source._bucket.cache_clear()
    with pytest.raises(ZeroVLError, match="need boto3"):
        s3_source.object_states("s3://bucket/cc3m")
