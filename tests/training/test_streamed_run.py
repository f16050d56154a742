"""A run that reads its shards from S3: the same weights as from the disk, whatever the server does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support import s3
from tests.support.flaky_proxy import CUT, DROP, UNAVAILABLE, FlakyProxy
from tests.support.stops import StopAfter
from tests.support.tiny_project import copy_project, make_project, recipe
from zerovl.data.batches.ahead import NothingAhead, ShardsAhead
from zerovl.data.manifest import Manifest
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.errors import ZeroVLError
from zerovl.model import bundle
from zerovl.training import run as training
from zerovl.training.run_spec import make_spec
from zerovl.training.shard_place import ShardPlace, shard_place
from zerovl.workspace import Workspace

ONE = Ranks(0, 1, torch.device("cpu"), OneRank())
USUAL = ["train.epochs=1", "train.valid_checks=1", "train.shuffle=blocks", "train.block_shards=1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_project(tmp_path_factory.mktemp("project"))


def test_a_run_from_a_bad_server_that_was_stopped_ends_bit_equal(
    project: Workspace,
    moto_bucket: str,
    moto_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    local, streamed = copy_project(project, tmp_path / "local"), copy_project(project, tmp_path / "streamed")
    for path in project.shards.rglob("*.tar"):
        s3.client().upload_file(str(path), moto_bucket, f"copy/{path.relative_to(project.shards)}")
    training.train(recipe(*USUAL), local, ONE, StopRequest())
    assert "shards   train.shuffle blocks mixes less than global" in capsys.readouterr().out
    for path in streamed.shards.rglob("*.tar"):
        path.unlink()
    proxy = FlakyProxy(moto_url, "GET", [UNAVAILABLE, DROP, *[CUT, "", ""] * 20])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    params = recipe(*USUAL, f"machine.shards=s3://{moto_bucket}/copy", f"machine.shard_cache.folder={tmp_path}/cache")
    try:
        training.train(params, streamed, ONE, StopAfter(2))
        training.train(params, streamed, ONE, StopRequest())
    finally:
        proxy.close()
    said = capsys.readouterr().out
    assert f"s3://{moto_bucket}/copy, whole shards through {tmp_path}/cache/ (at most 64.0 GiB)" in said
    assert "resumes after step 2" in said
    written, again = (load_file(its.model / bundle.WEIGHTS) for its in (local, streamed))
    assert all(torch.equal(tensor, written[name]) for name, tensor in again.items())


def place(project: Workspace, *overrides: str) -> ShardPlace:
    params = recipe("machine.shards=s3://bucket/copy", *overrides)
    spec: Any = make_spec(params, project)
    return shard_place(params, project, spec.manifest, spec.sampler)


def test_how_shards_are_read_follows_order_and_room(project: Workspace) -> None:
    manifest = Manifest.load(project.manifest)
    shards = [manifest.splits[source, "train"].shards for source in manifest.sources("train")]
    total = sum(shard.bytes for of_source in shards for shard in of_source)
    little, enough = f"machine.shard_cache.size={total / 2**10 / 4}KiB", "machine.shard_cache.size=1GiB"

    all_fit = place(project, enough, "train.shuffle=blocks")
    assert all_fit.said[0].endswith("all of them fit, so train.shuffle global would mix better once they are there")
    assert isinstance(all_fit.ahead(), ShardsAhead)
    assert "whole shards through" in place(project, enough).said[0]

    one_by_one = place(project, little)
    assert one_by_one.cache is None
    assert isinstance(one_by_one.ahead(), NothingAhead)
    assert "a request a pair: train.shuffle global needs all" in one_by_one.said[0]
    assert "train.shuffle blocks reads whole shards ahead, or raise the size" in one_by_one.said[0]

    with pytest.raises(ZeroVLError, match=r"machine\.shard_cache\.size .*: holds less than the .* blocks of 32 shards"):
        place(project, little, "train.shuffle=blocks")
