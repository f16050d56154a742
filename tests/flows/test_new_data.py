"""Data that was imported from S3 with DVC: new, changed and removed objects are noticed, nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from dvc.cli import main as dvc_command

from flows import stages
from flows.pipeline import Silent
from flows.retrain import update_imports
from flows.runtime import changes
from flows.runtime.checkout import make
from flows.runtime.paths import Paths
from tests.support.ports import free_port
from tests.support.prefect_api import wait_for
from tests.support.project_copy import commit, copy_project, git
from zerovl import params, params_file
from zerovl.registry.records import Version


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    port = free_port()
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tester-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        client = boto3.client("s3")

        def made() -> bool:
            try:
                client.create_bucket(Bucket="crawl")
            except Exception:
                return False
            return True

        wait_for("a bucket", made, 60)
        yield client
    finally:
        server.kill()
        server.wait()


def dvc(folder: Path, *words: str) -> None:
    """A DVC command in this process, which imports DVC and its S3 client once."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert dvc_command(list(words)) == 0
    finally:
        os.chdir(before)


def test_objects_that_come_change_and_go(tmp_path: Path, s3: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "run_dvc", lambda checkout, words, _listener: dvc(checkout.path, *words))

    def put(key: str, text: str) -> None:
        s3.put_object(Bucket="crawl", Key=f"raw/{key}", Body=text.encode())  # type: ignore[attr-defined]

    put("web/train_anno.csv", "image,image_id,caption,caption_id\n")
    root = copy_project(tmp_path / "project")
    dvc(root, "import-url", "s3://crawl/raw", "data/raw")
    commit(root, "imported")
    settings = params_file.from_recipe({}, ["data.raw=data/raw"], "test")
    origin = {
        "params": params.as_dict(settings),
        "git": {"commit": git(root, "rev-parse", "HEAD"), "dirty": False},
    }
    made = Version("zerovl", 1, "0" * 64, "2026-01-01T00:00:00Z", "test", {}, {}, origin, None)
    paths = Paths(root, tmp_path / "state")

    def is_new(name: str) -> bool:
        checkout = make(paths, name, name, "HEAD")
        update_imports(checkout, Silent())
        return changes.made_before(checkout.path, settings, [made]) is None

    assert not is_new("unchanged")
    put("web/train/1.jpg", "a picture")
    assert is_new("added")
    put("web/train_anno.csv", "image,image_id,caption,caption_id\n1.jpg,1,a cat,1\n")
    assert is_new("changed")
    s3.delete_object(Bucket="crawl", Key="raw/web/train/1.jpg")  # type: ignore[attr-defined]
    put("web/train_anno.csv", "image,image_id,caption,caption_id\n")
    assert not is_new("as it was")
    assert git(root, "status", "--porcelain") == ""  # the user's own .dvc file stays
