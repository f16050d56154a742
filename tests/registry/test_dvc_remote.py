"""DVC's remote `s3`, pointed at a bucket by the environment through `make remote-s3`, against a real server."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.s3 import SCRIPTS, variables


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("git") is None, reason="needs make and git")
def test_push_and_pull_with_bucket_and_endpoint_of_the_environment(
    rclone_url: str, rclone_bucket: str, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "ZEROVL_S3_BUCKET": f"{rclone_bucket}/dvc",
        **variables(rclone_url),
    }

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc" / "config")
    before = (tmp_path / ".dvc" / "config").read_text()
    assert f"s3://{rclone_bucket}/dvc" in run("make", "-f", str(ROOT / "Makefile"), "-o", "setup", "remote-s3")
    assert (tmp_path / ".dvc" / "config").read_text() == before  # the setting is this checkout's alone
    shard = tmp_path / "shards" / "000000.tar"
    shard.parent.mkdir()
    shard.write_bytes(os.urandom(300_000))
    content = shard.read_bytes()
    run("dvc", "add", "--quiet", "shards")
    run("dvc", "push", "--quiet", "-r", "s3")
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    shutil.rmtree(shard.parent)
    run("dvc", "pull", "--quiet", "-r", "s3")
    assert shard.read_bytes() == content
