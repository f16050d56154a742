"""An evaluation whose shards lie on S3 alone: every file of the report as from the disk, and so for the gate."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support import s3
from tests.support.real_world import make_model, make_project, settings
from zerovl.evaluation.job import Job
from zerovl.model.encoder import Encoder
from zerovl.params import Params
from zerovl.stages import evaluate
from zerovl.workspace import Workspace


def _report(params: Params, workspace: Workspace) -> dict[str, bytes]:
    evaluate.run(params, workspace)
    files = (path for path in workspace.evaluation_report.rglob("*") if path.is_file())
    return {str(path.relative_to(workspace.evaluation_report)): path.read_bytes() for path in files}


def _rsum(params: Params, workspace: Workspace) -> dict[str, float]:
    """By source, as the gate has it where the holder is scored again."""
    job = Job(params.evaluate, params.machine, workspace.root, workspace.root, workspace.model)
    return {source: its.result.rsum for source, its in job.rank(Encoder.load(workspace.model))[1].items()}


def test_report_and_gate_read_shards_through_the_cache(tmp_path: Path, moto_bucket: str) -> None:
    workspace = make_project(tmp_path)
    make_model(workspace, seed=1)
    local = settings(tmp_path)
    report, rsum = _report(local, workspace), _rsum(local, workspace)
    for path in workspace.shards.rglob("*.tar"):
        s3.client().upload_file(str(path), moto_bucket, f"copy/{path.relative_to(workspace.shards)}")
    shutil.rmtree(workspace.shards)
    cache = tmp_path / "cache"
    streamed = settings(tmp_path, f"machine.shards=s3://{moto_bucket}/copy", f"machine.shard_cache.folder={cache}")

    assert _report(streamed, workspace) == report
    assert len(list(cache.iterdir())) == 2  # the valid shards of two sources, and none of train
    assert _rsum(streamed, workspace) == rsum

    for path in cache.iterdir():
        path.unlink()
    direct = settings(
        tmp_path,
        f"machine.shards=s3://{moto_bucket}/copy",
        f"machine.shard_cache.folder={cache}",
        "machine.shard_cache.size=1KiB",
    )
    assert _rsum(direct, workspace) == rsum
    assert not list(cache.iterdir())
