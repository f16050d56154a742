"""The policies of docs/s3.md allow what the code calls, and no more actions than that."""

from __future__ import annotations

import json
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from tests.support.paths import ROOT
from tests.support.registries import Bundle, promote
from zerovl import s3_files
from zerovl.errors import ZeroVLError
from zerovl.registry import collection, retention, transfer
from zerovl.registry.registry import Registry
from zerovl.registry.stores.s3 import S3Store
from zerovl.release.promote import rollback
from zerovl.training.copied_checkpoints import CopiedCheckpoints, snapshot

PAGE = ROOT / "docs" / "s3.md"
ACTIONS = {
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "DeleteObject": "s3:DeleteObject",
}
Call = tuple[str, str]  # action, key or listed prefix

pytestmark = pytest.mark.usefixtures("unchecked")


def policy(title: str, bucket: str) -> list[dict[str, Any]]:
    """The statements of the JSON block below a heading, with the bucket and a prefix filled in."""
    found = re.search(rf"^## {title}$.*?```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert found, f"{PAGE}: no JSON below '## {title}'"
    document = json.loads(found.group(1).replace("BUCKET", bucket).replace("PREFIX", "team"))
    assert document["Version"] == "2012-10-17"
    statements = document["Statement"]
    assert all(statement["Effect"] == "Allow" for statement in statements)
    return [dict(statement) for statement in statements]


def allows(statement: dict[str, Any], bucket: str, call: Call) -> bool:
    action, name = call
    if action not in statement["Action"]:
        return False
    if action == "s3:ListBucket":
        prefixes = statement["Condition"]["StringLikeIfExists"]["s3:prefix"]
        return statement["Resource"] == f"arn:aws:s3:::{bucket}" and any(fnmatchcase(name, p) for p in prefixes)
    return fnmatchcase(f"arn:aws:s3:::{bucket}/{name}", statement["Resource"])


def recorded(client: Any) -> list[Call]:
    """Every call that a client makes from here on."""
    calls: list[Call] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        calls.append((ACTIONS[model.name], str(params.get("Key", params.get("Prefix", "")))))

    client.meta.events.register("provide-client-params.s3.*", note)
    return calls


def agree(calls: list[Call], statements: list[dict[str, Any]], bucket: str) -> None:
    refused = [call for call in calls if not any(allows(statement, bucket, call) for statement in statements)]
    assert refused == []
    allowed = {action for statement in statements for action in statement["Action"]}
    assert allowed == {action for action, _ in calls}


def test_the_publisher(moto_bucket: str, make_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(moto_bucket, "team")
    calls, registry = recorded(store._client), Registry(store)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(33 << 20))
    for content in "ab":
        files = {**make_bundle(content), "large.safetensors": large}
        version = registry.publish("zerovl", files, metrics={}, provenance={}, by="tester")
        promote(registry, version)
    rollback(registry, "zerovl", "production", why="", by="")
    with monkeypatch.context() as patch:

        def broken(*_: object) -> None:
            raise EndpointConnectionError(endpoint_url="http://gone")

        patch.setattr(S3Store, "_send_parts", broken)
        large.write_bytes(os.urandom(33 << 20))
        with pytest.raises(ZeroVLError, match="no answer"):
            store.create("zerovl/blobs/sha256/other", large)
    agree(calls, policy("Publisher", moto_bucket), moto_bucket)


def test_the_collector(moto_bucket: str) -> None:
    store = S3Store(moto_bucket, "team")
    calls, registry = recorded(store._client), Registry(store)
    files: dict[str, Path | bytes] = {"config.json": b"{}", "model.safetensors": b"weights"}
    version = registry.publish("zerovl", files, metrics={}, provenance={}, by="tester")
    retention.retire(registry, version, "of no use", "tester")
    assert len(collection.collect(registry, "zerovl", collection.grace(0), "tester")) == 2
    agree(calls, policy("Collector", moto_bucket), moto_bucket)


def test_the_reader(moto_bucket: str, make_bundle: Bundle, tmp_path: Path) -> None:
    registry = Registry(S3Store(moto_bucket, "team"))
    version = registry.publish("zerovl", make_bundle("a"), metrics={}, provenance={}, by="tester")
    promote(registry, version)
    store = S3Store(moto_bucket, "team")
    calls, reader = recorded(store._client), Registry(store)
    found = reader.resolve("zerovl@production")
    transfer.verify(store, found)
    transfer.pull(store, found, tmp_path / "out")
    assert reader.names() == ["zerovl"]
    assert reader.versions("zerovl") == [found]
    assert len(reader.history("zerovl", "production")) == 1
    agree(calls, policy("Reader", moto_bucket), moto_bucket)


def test_copies_of_checkpoints(moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = CopiedCheckpoints(f"s3://{moto_bucket}/team", "run")
    calls = recorded(copies._bucket.client)
    monkeypatch.setattr(s3_files, "PART_BYTES", 5 << 20)
    for step in (1, 2):
        folder = tmp_path / "run" / "checkpoints" / f"step-0000000{step}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": step, "number": step}))
        (folder / "shard-00001-of-00001.safetensors").write_bytes(os.urandom(6 << 20))
        with snapshot(tmp_path / "run", step) as files:
            copies.upload(files, lambda _count: None)
    copies.drop_old(2, keep=1, keep_every=0)
    (copy,) = copies.newest_first()
    copies.fetch(copy, tmp_path / "other", lambda _count: None)

    def broken(count: int) -> None:
        if count:
            raise KeyError("in the middle")

    with snapshot(tmp_path / "run", 2) as files, pytest.raises(KeyError):
        copies.upload(files, broken)
    agree(calls, policy("Copies of checkpoints", moto_bucket), moto_bucket)
