"""DVC's remote `s3`, pointed at a bucket through `make remote-s3`; the real server behind refuses checksum headers."""

import configparser
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.flaky_proxy import RefusesChecksums
from tests.support.paths import ROOT
from tests.support.s3 import SCRIPTS, variables
from zerovl import s3

Run = Callable[..., subprocess.CompletedProcess[str]]

needs_programs = pytest.mark.skipif(
    shutil.which("make") is None or shutil.which("git") is None, reason="needs make and git"
)


@pytest.fixture
def server(rclone_url: str) -> Iterator[RefusesChecksums]:
    proxy = RefusesChecksums(rclone_url)
    yield proxy
    proxy.close()


@pytest.fixture
def run(server: RefusesChecksums, rclone_bucket: str, tmp_path: Path) -> Run:
    """Run a command in a project of DVC, as a user whose AWS settings are in the environment alone."""
    environment = {
        **os.environ,
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ZEROVL_S3_BUCKET": f"{rclone_bucket}/dvc",
        **variables(server.url),
    }
    for name in ("AWS_CONFIG_FILE", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", *s3.checksum_variables()):
        environment.pop(name, None)

    def command(*words: str, ends: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, cwd=tmp_path, env={**environment, **more}, capture_output=True, text=True, check=False
        )
        assert done.returncode == ends, f"{words}:\n{done.stdout}\n{done.stderr}"
        return done

    command("git", "init", "--quiet")
    (tmp_path / ".dvc").mkdir()
    for name in ("config", "s3.conf"):
        shutil.copy(ROOT / ".dvc" / name, tmp_path / ".dvc" / name)
    return command


def point(run: Run, **more: str) -> str:
    return run("make", "-f", str(ROOT / "Makefile"), "-o", "setup", "remote-s3", **more).stdout


@needs_programs
def test_push_and_pull_where_checksum_headers_are_refused(
    run: Run, server: RefusesChecksums, rclone_bucket: str, tmp_path: Path
) -> None:
    before = (tmp_path / ".dvc" / "config").read_text()
    assert f"s3://{rclone_bucket}/dvc" in point(run)
    assert (tmp_path / ".dvc" / "config").read_text() == before  # the setting is this checkout's alone
    contents = {tmp_path / "shards" / f"{number}.tar": os.urandom(100_000) for number in range(3)}
    (tmp_path / "shards").mkdir()
    for path, content in contents.items():
        path.write_bytes(content)
    run("dvc", "add", "--quiet", "shards")
    without = {"AWS_CONFIG_FILE": str(tmp_path / "none")}  # goes before the remote's
    assert "failed to push" in run("dvc", "push", "-r", "s3", ends=1, **without).stderr
    assert server.refused > 0
    server.refused = 0
    run("dvc", "push", "--quiet", "-r", "s3")
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    shutil.rmtree(tmp_path / "shards")
    # As the flows and `zerovl sweep` run DVC: the remote's file is not needed.
    run("dvc", "pull", "--quiet", "-r", "s3", **without, **s3.checksum_variables())
    assert server.refused == 0
    assert {path: path.read_bytes() for path in contents} == contents


@needs_programs
def test_who_has_an_aws_configuration_keeps_it_and_is_told_what_to_add(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dvc").write_text('#!/bin/sh\necho "dvc $*"\n')
    (tmp_path / "bin" / "dvc").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    assert "dvc remote modify --local s3 configpath .dvc/s3.conf\n" in point(run, PATH=path)
    own = tmp_path / "own"
    own.write_text("[profile work]\nregion = eu-central-1\n")
    told = point(run, PATH=path, AWS_CONFIG_FILE=str(own))
    assert f"add this to your profile in {own}:\nrequest_checksum_calculation = when_required\n" in told
    assert "configpath .dvc/s3.conf" not in told
    local = tmp_path / ".dvc" / "config.local"  # of before there was a configuration
    local.write_text("['remote \"s3\"']\n    configpath = s3.conf\n")
    assert "add this" in point(run, AWS_PROFILE="work")
    assert "url = " in local.read_text()
    assert "configpath" not in local.read_text()
    for name in ("AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE"):  # the latter is not there yet
        assert "configpath .dvc/s3.conf" not in point(run, **{"PATH": path, name: "work"})
    own.write_text(own.read_text() + "request_checksum_calculation = when_required\n")
    assert "add this" not in point(run, PATH=path, AWS_CONFIG_FILE=str(own))


def test_what_is_typed_and_what_is_run_have_the_same_setting() -> None:
    written = configparser.ConfigParser()
    written.read(ROOT / ".dvc" / "s3.conf")
    assert {f"AWS_{name.upper()}": value for name, value in written["default"].items()} == s3.checksum_variables()
