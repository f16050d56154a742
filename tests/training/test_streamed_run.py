"""A run that reads its shards from S3: the same weights as from the disk, whatever the server does."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file

from tests.support import s3
from tests.support.flaky_proxy import CUT, DROP, UNAVAILABLE, FlakyProxy
from tests.support.server_away import ServerAway, WaitedFor
from tests.support.stops import StopAfter
from tests.support.tiny_project import copy_project, make_project, recipe
from zerovl import s3 as client
from zerovl.bundle_files import WEIGHTS
from zerovl.data import s3_shards
from zerovl.data.batches.ahead import NothingAhead, ShardsAhead
from zerovl.data.manifest import Manifest
from zerovl.data.open_shards import open_shards
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.errors import ZeroVLError
from zerovl.training import run as training
from zerovl.training.run_spec import make_spec
from zerovl.training.shard_place import ShardPlace, shard_place
from zerovl.workspace import Workspace

ONE = Ranks(0, 1, torch.device("cpu"), OneRank())
USUAL = ["train.epochs=1", "train.valid_checks=1", "train.shuffle=blocks", "train.block_shards=1"]
AWAY_SECONDS = 75


Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Six shards of training pairs a source."""
    return make_project(tmp_path_factory.mktemp("project"), "prepare.shard_samples=8")


@pytest.fixture(scope="module")
def from_disk(project: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The weights of a training whose shards lie on the disk."""
    local = copy_project(project, tmp_path_factory.mktemp("local") / "project")
    training.train(recipe(*USUAL), local, ONE, StopRequest())
    return load_file(local.model / WEIGHTS)


def without_shards(project: Workspace, root: Path) -> Workspace:
    """The project as a node has it that reads shards from S3."""
    (root / "data").mkdir(parents=True)
    for name in ("manifest", "tokenizer"):
        (root / "data" / name).symlink_to(project.root / "data" / name)
    (root / "reports").mkdir()
    (root / "reports/validation").symlink_to(project.validation_report)
    return Workspace(root)


def assert_weights(workspace: Workspace, expected: Weights) -> None:
    found = load_file(workspace.model / WEIGHTS)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_a_run_from_a_bad_server_that_was_stopped_ends_bit_equal(
    project: Workspace,
    from_disk: Weights,
    moto_bucket: str,
    moto_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in project.shards.rglob("*.tar"):
        s3.client().upload_file(str(path), moto_bucket, f"copy/{path.relative_to(project.shards)}")
    workspace = without_shards(project, tmp_path / "streamed")
    proxy = FlakyProxy(moto_url, "GET", [UNAVAILABLE, DROP, *[CUT, "", ""] * 20])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    params = recipe(*USUAL, f"machine.shards=s3://{moto_bucket}/copy", f"machine.shard_cache.folder={tmp_path}/cache")
    try:
        training.train(params, workspace, ONE, StopAfter(2))
        training.train(params, workspace, ONE, StopRequest())
    finally:
        proxy.close()
    said = capsys.readouterr().out
    assert f"s3://{moto_bucket}/copy, whole shards through {tmp_path}/cache/ (at most 64.0 GiB)" in said
    assert "resumes after step 2" in said
    assert_weights(workspace, from_disk)


def test_a_server_that_is_away_for_more_than_a_minute_costs_a_run_nothing(
    project: Workspace,
    from_disk: Weights,
    clean_aws: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A real server, killed in the middle of a shard with other parts on their way; only the waits are not real."""
    shutil.copytree(project.shards, tmp_path / "served/bucket/copy")
    read = s3_shards.S3Ranges.read
    with ServerAway(tmp_path / "served", killed_at=14) as server:
        waits = WaitedFor(server, AWAY_SECONDS)

        def counted(ranges: s3_shards.S3Ranges, path: str, offset: int, size: int) -> bytes:
            server.count_a_read()
            return read(ranges, path, offset, size)

        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setattr(s3_shards, "PART", 4096)
        monkeypatch.setattr(s3_shards, "time", waits)
        monkeypatch.setattr(s3_shards.S3Ranges, "read", counted)
        monkeypatch.setattr(client, "PATIENT", client.Patience(1, 5, 30))  # or each request waits by itself, too
        params = recipe(*USUAL, "machine.shards=s3://bucket/copy", f"machine.shard_cache.folder={tmp_path}/cache")
        workspace = without_shards(project, tmp_path / "streamed")
        training.train(params, workspace, ONE, StopRequest())
        assert not server.away
        assert server.reads > 14
        assert waits.longest >= AWAY_SECONDS
    assert "asking again for up to 10 minutes" in caplog.text
    assert_weights(workspace, from_disk)


def place(project: Workspace, *overrides: str) -> ShardPlace:
    cache = project.root / "cache"
    params = recipe("machine.shards=s3://bucket/copy", f"machine.shard_cache.folder={cache}", *overrides)
    spec: Any = make_spec(params, project)
    return shard_place(params, project, spec.manifest, spec.sampler)


def test_a_cache_on_a_disk_without_locks_is_told(
    project: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(_descriptor: int, _operation: int) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    told = f"machine.shard_cache.folder {project.root}/cache: its file system has no locks (No locks available)"
    assert [text.startswith(told) for text in place(project).said] == [False, True]
    machine = recipe("machine.shards=s3://bucket/copy", f"machine.shard_cache.folder={project.root}/cache").machine
    for _ in range(2):  # an evaluation opens them several times
        open_shards(Manifest.load(project.manifest), "valid", machine, project, project.root)
    assert [record.getMessage().startswith(told) for record in caplog.records] == [True]


def test_how_shards_are_read_follows_order_and_room(project: Workspace) -> None:
    manifest = Manifest.load(project.manifest)
    shards = [manifest.splits[source, "train"].shards for source in manifest.sources("train")]
    total = sum(shard.bytes for of_source in shards for shard in of_source)
    little, enough = f"machine.shard_cache.size={total / 2**10 / 4}KiB", "machine.shard_cache.size=1GiB"

    params = recipe("train.shuffle=blocks")
    spec: Any = make_spec(params, project)
    on_disk = shard_place(params, project, spec.manifest, spec.sampler)
    assert on_disk.said[0].startswith("train.shuffle blocks mixes less than global")

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
