"""Data that was imported from S3 with DVC: new, changed and removed objects are noticed, nothing else is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.cli import main as dvc_command

from flows import stages
from flows.pipeline import Silent
from flows.retrain import update_imports
from flows.runtime import changes
from flows.runtime.checkout import make
from flows.runtime.paths import Paths
from tests.support.flaky_proxy import CountsRequests
from tests.support.project_copy import commit, copy_project, git
from tests.support.s3 import client, new_bucket
from zerovl import params, params_file
from zerovl.registry.records import Version


@pytest.fixture(scope="module")
def server(moto_url: str) -> Iterator[CountsRequests]:
    """One for all tests: DVC keeps its client of S3 as long as the process."""
    proxy = CountsRequests(moto_url)
    yield proxy
    proxy.close()


class Put:
    """Writes objects below `raw` of a bucket, or deletes them."""

    def __init__(self, bucket: str) -> None:
        self.raw = f"s3://{bucket}/raw"
        self._bucket, self._client = bucket, client()

    def __call__(self, key: str, text: str | None) -> None:
        place = {"Bucket": self._bucket, "Key": f"raw/{key}"}
        if text is None:
            self._client.delete_object(**place)
        else:
            self._client.put_object(**place, Body=text.encode())


@pytest.fixture
def put(clean_aws: None, moto_url: str, server: CountsRequests, monkeypatch: pytest.MonkeyPatch) -> Put:
    """What writes into a bucket of its own, beside the server that counts, where DVC runs in this process."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setattr(stages, "run_dvc", lambda checkout, words, _listener: dvc(checkout.path, *words))
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    made = Put(new_bucket())
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    return made


def dvc(folder: Path, *words: str) -> None:
    """A DVC command in this process, which imports DVC and its S3 client once."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert dvc_command(list(words)) == 0
    finally:
        os.chdir(before)


def is_a_look(requests: dict[str, int]) -> bool:
    """Whether nothing was fetched, with fewer requests than there are objects."""
    return set(requests) == {"HEAD", "LIST"} and sum(requests.values()) < 20


def test_objects_that_come_change_and_go(tmp_path: Path, put: Put, server: CountsRequests) -> None:
    put("web/train_anno.csv", "image,image_id,caption,caption_id\n")
    root = copy_project(tmp_path / "project")
    dvc(root, "import-url", put.raw, "data/raw")
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

    server.counted()
    assert not is_new("unchanged")
    assert is_a_look(server.counted())
    put("web/train/1.jpg", "a picture")
    assert is_new("added")
    put("web/train_anno.csv", "image,image_id,caption,caption_id\n1.jpg,1,a cat,1\n")
    assert is_new("changed")
    put("web/train/1.jpg", None)
    put("web/train_anno.csv", "image,image_id,caption,caption_id\n")
    assert not is_new("as it was")
    assert git(root, "status", "--porcelain") == ""  # the user's own .dvc file stays


def test_an_import_without_download_costs_its_first_update_all_objects(
    tmp_path: Path, put: Put, server: CountsRequests
) -> None:
    """By hand, in one checkout: the first update writes the digests that the import's file had not."""
    for number in range(30):
        put(f"{number}.jpg", f"picture {number}")
    dvc(tmp_path, "init", "--quiet", "--no-scm")
    dvc(tmp_path, "import-url", "--quiet", "--no-download", put.raw, "raw")
    server.counted()
    dvc(tmp_path, "update", "--quiet", "--no-download", "raw.dvc")
    assert is_a_look(server.counted())
    dvc(tmp_path, "update", "--quiet", "raw.dvc")
    assert server.counted()["GET"] == 30
    dvc(tmp_path, "update", "--quiet", "raw.dvc")
    assert is_a_look(server.counted())


def test_an_import_without_download_is_downloaded_once(tmp_path: Path, put: Put, server: CountsRequests) -> None:
    for number in range(30):
        put(f"{number}.jpg", f"picture {number}")
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet")
    dvc(root, "init", "--quiet")
    (root / "data").mkdir()
    server.counted()
    dvc(root, "import-url", "--quiet", "--no-download", put.raw, "data/raw")
    assert is_a_look(server.counted())
    commit(root, "imported")
    paths = Paths(root, tmp_path / "state")

    def run(name: str) -> str:
        """Look for new data in a checkout of its own; returns the import's file."""
        checkout = make(paths, name, name, "HEAD")
        update_imports(checkout, Silent())
        checkout.commit(name)
        assert len(list((checkout.path / "data" / "raw").iterdir())) == 30
        return (checkout.path / "data" / "raw.dvc").read_text()

    first = run("first")
    assert server.counted()["GET"] == 30
    assert run("unchanged") == first
    assert is_a_look(server.counted())
    put("7.jpg", "another")
    assert run("one changed") != first
    assert server.counted()["GET"] == 30
    put("7.jpg", "picture 7")
    assert run("as it was") == first
    assert is_a_look(server.counted())
