"""Checkpoints copied to S3: whole or absent, fetched on another node, which ends with the same weights bit for bit."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support import s3
from tests.support.flaky_proxy import CUT, DROP, UNAVAILABLE, FlakyProxy
from tests.support.fork_server import server
from tests.support.ports import free_port
from tests.support.stops import StopAfter
from tests.support.tiny_project import copy_project, make_project, recipe, run_folder, set_params
from zerovl import s3 as s3_module
from zerovl import s3_files
from zerovl.bundle_files import WEIGHTS
from zerovl.distributed.ranks import ALONE
from zerovl.engine.trainer import StopRequest
from zerovl.errors import ZeroVLError
from zerovl.s3 import Patience
from zerovl.training import checkpoint_copy as copying
from zerovl.training import run as training
from zerovl.training.copied_checkpoints import CopiedCheckpoints, DamagedCopyError, snapshot
from zerovl.workspace import Workspace

USUAL = ["train.epochs=1", "train.valid_checks=0", "machine.checkpoint_steps=1"]  # 6 steps
HASTY = Patience(attempts=2, connect_seconds=1, answer_seconds=1)


client = cache(s3.client)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def uninterrupted(project: Workspace, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    workspace = copy_project(project, tmp_path_factory.mktemp("whole") / "run")
    assert training.train(recipe(*USUAL), workspace, ALONE, StopRequest()) == 0
    return weights(workspace)


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvclive", None)


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.INFO, "zerovl")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def weights(workspace: Workspace) -> bytes:
    return (workspace.model / WEIGHTS).read_bytes()


def run_of(root: Path, step: int, number: int, content: bytes = b"w" * 9) -> Path:
    """A run's folder with a checkpoint that has the form of one."""
    folder = root / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": step, "number": number}))
    (folder / "shard-00001-of-00002.safetensors").write_bytes(content)
    (folder / "shard-00002-of-00002.safetensors").write_bytes(content[::-1])
    for rank in (1, 2):  # how far a rank is in its streamed sources: without it they would begin again
        (folder / f"stream-{rank:05d}-of-00002.json").write_text(json.dumps({"layout": {"ranks": 2}}))
    (root / "metrics.jsonl").write_text('{"step": 0}\n')
    (root / "micro_batch.json").write_text('{"micro_batch": 4}')
    return root


def upload(copies: CopiedCheckpoints, run: Path, step: int) -> None:
    with snapshot(run, step) as files:
        copies.upload(files, lambda _count: None)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def keys(bucket: str) -> list[str]:
    return [item["Key"] for item in client().list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_a_copy_comes_back_as_it_was_from_a_bad_server(
    moto_bucket: str, moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_files, "PART_BYTES", 6 << 20)  # above the least of S3, 5 MiB
    run = run_of(tmp_path / "run", 100, 1, os.urandom(13 << 20))
    sender = FlakyProxy(moto_url, "PUT", [UNAVAILABLE, DROP, "", DROP])
    monkeypatch.setenv("AWS_ENDPOINT_URL", sender.url)
    with snapshot(run, 100) as files:
        before = files_of(run)
        (run / "checkpoints" / "step-00000100" / "state.json").unlink()  # as where newer ones replace it meanwhile
        CopiedCheckpoints(f"s3://{moto_bucket}/team/", "abc").upload(files, lambda _count: None)
    sender.close()
    assert not sender.faults
    receiver = FlakyProxy(moto_url, "GET", ["", CUT, DROP, CUT, UNAVAILABLE])
    monkeypatch.setenv("AWS_ENDPOINT_URL", receiver.url)
    copies = CopiedCheckpoints(f"s3://{moto_bucket}/team", "abc")
    (copy,) = copies.newest_first()
    assert copy.step == 100
    assert set(keys(moto_bucket)) == {
        *(f"team/abc/{copy.name}/{Path(name).name}" for name in before),
        f"team/abc/{copy.name}/manifest.json",
    }
    copies.fetch(copy, tmp_path / "other", lambda _count: None)
    receiver.close()
    assert not receiver.faults
    assert files_of(tmp_path / "other") == before


def test_what_has_no_manifest_or_another_digest_is_no_copy(moto_bucket: str, tmp_path: Path) -> None:
    copies = CopiedCheckpoints(f"s3://{moto_bucket}", "abc")
    run = run_of(tmp_path / "run", 1, 1)

    class KilledError(Exception):
        pass

    def killed(count: int) -> None:
        if count:
            raise KilledError

    with snapshot(run, 1) as files, pytest.raises(KilledError):
        copies.upload(files, killed)
    assert len(keys(moto_bucket)) == 1
    assert copies.newest_first() == []

    upload(copies, run, 1)
    (copy,) = copies.newest_first()
    for name, body, problem in (
        ("shard-00001-of-00002.safetensors", b"v" * 9, "shard-00001-of-00002.safetensors: damaged, expected sha256"),
        ("shard-00001-of-00002.safetensors", b"", "damaged, cut off"),
        ("manifest.json", b'{"format": 1', "is not a manifest of step 1"),
        ("manifest.json", _with_name(copies, copy.name, moto_bucket, "../../escaped"), "is not a manifest of step 1"),
    ):
        before = client().get_object(Bucket=moto_bucket, Key=f"abc/{copy.name}/{name}")["Body"].read()
        client().put_object(Bucket=moto_bucket, Key=f"abc/{copy.name}/{name}", Body=body)
        with pytest.raises(DamagedCopyError, match=problem):
            copies.fetch(copy, tmp_path / "other", lambda _count: None)
        client().put_object(Bucket=moto_bucket, Key=f"abc/{copy.name}/{name}", Body=before)
    client().delete_object(Bucket=moto_bucket, Key=f"abc/{copy.name}/state.json")
    with pytest.raises(DamagedCopyError, match=r"state\.json: damaged, missing"):
        copies.fetch(copy, tmp_path / "other", lambda _count: None)
    assert files_of(tmp_path / "other") == {}


def _with_name(copies: CopiedCheckpoints, folder: str, bucket: str, name: str) -> bytes:
    key = f"abc/{folder}/manifest.json"
    manifest = json.loads(client().get_object(Bucket=bucket, Key=key)["Body"].read())
    manifest["checkpoint"][name] = manifest["checkpoint"]["state.json"]
    return json.dumps(manifest).encode()


def test_old_copies_go_and_every_so_many_th_stays(moto_bucket: str, tmp_path: Path) -> None:
    copies = CopiedCheckpoints(f"s3://{moto_bucket}/team", "abc")
    client().put_object(Bucket=moto_bucket, Key="team/abc/step-00000001-00000000/state.json", Body=b"cut off")
    client().put_object(Bucket=moto_bucket, Key="team/other/step-00000001-00000000/manifest.json", Body=b"{}")
    run = tmp_path / "run"
    for number, step in enumerate((10, 20, 30, 40, 99), start=1):
        upload(copies, run_of(run, step, number), step)
    upload(copies, run, 40)  # once more: the one before is replaced
    copies.drop_old(40, keep=2, keep_every=2)
    assert [copy.step for copy in copies.newest_first()] == [99, 40, 30, 20]  # 99 is another node's, or passed over
    folders = {key.rpartition("/")[0] for key in keys(moto_bucket)}
    assert len(folders) == 5
    assert "team/other/step-00000001-00000000" in folders


def train(workspace: Workspace, bucket: str, stop: StopRequest | None = None) -> int:
    params = recipe(*USUAL, f"machine.checkpoint_copy=s3://{bucket}/team/")
    return training.train(params, workspace, ALONE, stop or StopRequest())


def test_another_node_goes_on_where_a_killed_one_was(
    project: Workspace,
    uninterrupted: bytes,
    moto_bucket: str,
    moto_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heard: Callable[[], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first node is killed in its third copy, the second is told to end, the third finds a damaged copy."""
    killed, told, last = (copy_project(project, tmp_path / name) for name in ("killed", "told", "last"))
    set_params(killed, *USUAL, f"machine.checkpoint_copy=s3://{moto_bucket}/team")
    child = server().start(
        "zerovl.cli:main", "train", cwd=killed.root, prepare="tests.support.killed_uploads:in_the_third"
    )
    assert child.wait(100) == -signal.SIGKILL
    run = run_folder(killed).name
    copies = CopiedCheckpoints(f"s3://{moto_bucket}/team", run)
    assert [copy.step for copy in copies.newest_first()] == [2, 1]

    proxy = FlakyProxy(moto_url, "PUT", [DROP, UNAVAILABLE, "", "", DROP])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    assert train(told, moto_bucket, StopAfter(2)) == 3
    proxy.close()
    assert not proxy.faults
    assert f"fetched the checkpoint of step 2 from s3://{moto_bucket}/team/{run}" in heard()
    assert f"the checkpoint of step 4 is in s3://{moto_bucket}/team/{run}" in heard()
    said = capsys.readouterr().out
    assert f"of checkpoints go to s3://{moto_bucket}/team/{run} while training goes on" in said
    assert "resumes after step 2: " in said

    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    newest, before, *_ = copies.newest_first()
    assert newest.step == 4
    key = f"team/{run}/{newest.name}/shard-00001-of-00001.safetensors"
    client().put_object(Bucket=moto_bucket, Key=key, Body=b"damaged")
    assert train(last, moto_bucket) == 0
    assert "copy of step 4 is passed over: " in heard()
    assert f"resumes after step {before.step}: " in capsys.readouterr().out
    assert weights(last) == uninterrupted
    rows = (last.training_report / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(6))
    metrics = json.loads(last.training_metrics.read_text())
    assert metrics["copied_checkpoints"] >= 1
    assert metrics["failed_copies"] == 0
    assert copies.newest_first()[0].step == 6

    assert train(killed, moto_bucket) == 0  # its own checkpoints are older
    assert "already trained" in capsys.readouterr().out
    assert weights(killed) == uninterrupted


def test_a_server_that_is_away_keeps_no_run_that_is_here_from_a_step(
    project: Workspace,
    uninterrupted: bytes,
    clean_aws: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heard: Callable[[], str],
) -> None:
    for module, name in ((s3_module, "PATIENT"), (copying, "_AT_HAND")):
        monkeypatch.setattr(module, name, HASTY)
    monkeypatch.setattr(copying, "QUIET_SECONDS", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    workspace = copy_project(project, tmp_path / "run")
    with pytest.raises(ZeroVLError, match=r"has no checkpoint, .*set machine.checkpoint_copy to ''"):
        train(workspace, "bucket")
    assert training.train(recipe(*USUAL), workspace, ALONE, StopAfter(2)) == 3
    assert train(workspace, "bucket") == 0
    assert "no answer from http://127.0.0.1:" in heard()
    assert f"The run goes on from step 2 in {run_folder(workspace)}/checkpoints" in heard()
    assert f"the checkpoint of step 6 is in {run_folder(workspace)}/checkpoints alone: " in heard()
    assert weights(workspace) == uninterrupted
    assert json.loads(workspace.training_metrics.read_text())["copied_checkpoints"] == 0

    def leave(_copy: copying.S3Copy) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(copying.S3Copy, "finish", leave)
    for path in (workspace.training_run, workspace.training_metrics):
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        train(workspace, "bucket")
    assert json.loads(workspace.training_metrics.read_text())["copied_checkpoints"] == 0
    assert json.loads(workspace.training_run.read_text())["fingerprint"] == run_folder(workspace).name


def test_a_place_is_an_address_of_a_bucket() -> None:
    with pytest.raises(ZeroVLError, match=r"machine.checkpoint_copy: '/mnt/copies' names no bucket; write it as s3://"):
        recipe("machine.checkpoint_copy=/mnt/copies")
