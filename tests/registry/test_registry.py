from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.registries import Bundle, damage, processes, publish
from zerovl.errors import ZeroVLError
from zerovl.registry import transfer
from zerovl.registry.records import Move, now
from zerovl.registry.registry import Registry, split_reference
from zerovl.registry.stores import open_store
from zerovl.registry.stores.folder import FolderStore
from zerovl.registry.transfer import DamagedError


def test_push_and_pull(registry: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    files = make_bundle("a", size=20 << 20)
    version = publish(registry, files, provenance={"git": {"commit": "abc"}}, verdict={"passed": True, "reasons": []})
    assert version.reference == "zerovl@1"
    assert registry.resolve("zerovl@1") == version
    assert registry.names() == ["zerovl"]
    transfer.verify(registry.store, version)
    transfer.pull(registry.store, version, tmp_path / "out" / "model")
    pulled = {path.name: path.read_bytes() for path in (tmp_path / "out" / "model").iterdir()}
    assert pulled == {
        name: source if isinstance(source, bytes) else source.read_bytes() for name, source in files.items()
    }
    assert os.listdir(tmp_path / "out") == ["model"]
    blob = registry.store.read(f"zerovl/blobs/sha256/{hashlib.sha256(pulled['config.json']).hexdigest()}")
    assert blob == pulled["config.json"]
    assert json.loads(registry.store.read("zerovl/versions/1.json"))["provenance"] == {"git": {"commit": "abc"}}


def test_the_same_bundle_is_the_same_version(registry: Registry, make_bundle: Bundle) -> None:
    first = publish(registry, make_bundle("a"))
    second = publish(registry, make_bundle("b"))
    told = {**make_bundle("a"), "provenance.json": b'{"date": "later"}', "MODEL_CARD.md": b"# other words"}
    assert publish(registry, told, by="someone else") == first
    assert publish(registry, {**make_bundle("a"), "metrics.json": b"{}"}).number == 3
    # Its evidence is rounded otherwise on another machine; it is the same model.
    evidence: dict[str, Path | bytes] = {"queries.parquet": b"ranks", "sample/pairs.tar": b"pairs"}
    assert publish(registry, {**make_bundle("a"), **evidence}) == first
    assert (first.number, second.number) == (1, 2)
    assert registry.numbers("zerovl") == [1, 2, 3]


def test_two_publishers_of_one_identity_get_one_version(local: Registry, make_bundle: Bundle) -> None:
    """The other one publishes the same, and something else, after our look at what exists."""
    files, looked = make_bundle("a"), local.numbers

    def overtaken(name: str) -> list[int]:
        numbers = looked(name)
        local.numbers = looked  # type: ignore[method-assign]
        publish(local, make_bundle("b"))
        publish(local, files)
        return numbers

    local.numbers = overtaken  # type: ignore[method-assign]
    assert publish(local, files).number == 2
    assert local.numbers("zerovl") == [1, 2]


def _publish_one(arguments: tuple[str, int]) -> int:
    uri, content = arguments
    files: dict[str, Path | bytes] = {
        "model.safetensors": b"%d" % content * 1000,
        "config.json": b"{}",
        "metrics.json": b"{}",
    }
    return publish(Registry(open_store(uri)), files).number


@pytest.mark.parametrize(
    ("registry", "contents"),
    [("s3", range(8)), ("folder", range(8)), ("folder", [0, 1, 2, 3] * 2)],
    ids=["s3", "folder", "folder-pairs"],
    indirect=["registry"],
)
def test_eight_publishers_at_once(registry: Registry, contents: list[int]) -> None:
    with processes(8) as pool:
        numbers = pool.map(_publish_one, [(registry.store.uri, content) for content in contents], chunksize=1)
    distinct = len(set(contents))
    assert set(numbers) == set(range(1, distinct + 1))
    assert registry.numbers("zerovl") == list(range(1, distinct + 1))
    for number, content in zip(numbers, contents, strict=True):
        version = registry.version("zerovl", number)
        transfer.verify(registry.store, version)
        assert version.files["model.safetensors"].sha256 == hashlib.sha256(b"%d" % content * 1000).hexdigest()


class StallingProxy:
    """Passes bytes on to a server until `limit` went through, then holds everything."""

    def __init__(self, url: str, limit: int) -> None:
        self._server = (urlsplit(url).hostname, urlsplit(url).port)
        self._limit, self._passed, self._lock = limit, 0, threading.Lock()
        self.stalled = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, target, source is client), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while block := source.recv(1 << 16):
                with self._lock:
                    self._passed += len(block) * counted
                    if self._passed > self._limit:
                        self.stalled.set()
                if self.stalled.is_set():
                    threading.Event().wait()
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other side has gone

    def close(self) -> None:
        self._listener.close()


def test_a_killed_upload_leaves_no_version_and_a_rerun_publishes(
    moto_bucket: str, moto_url: str, tmp_path: Path
) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(os.urandom(40 << 20))
    uri = f"s3://{moto_bucket}"
    script = f"""
from pathlib import Path
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
files = {{"config.json": b"{{}}", "model.safetensors": Path({str(weights)!r})}}
version = Registry(open_store({uri!r})).publish("zerovl", files, metrics={{}}, provenance={{}}, by="child")
print(version.number)
"""
    proxy = StallingProxy(moto_url, limit=20 << 20)
    child = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "AWS_ENDPOINT_URL": proxy.url})
    try:
        assert proxy.stalled.wait(120)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
        proxy.close()
    registry = Registry(open_store(uri))
    assert registry.names() == []
    with pytest.raises(ZeroVLError, match="there is no zerovl@1"):
        registry.resolve("zerovl@1")
    rerun = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert rerun.stdout.strip() == "1"
    transfer.verify(registry.store, registry.resolve("zerovl@1"))


def test_a_flipped_byte_is_found(local: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    version = publish(local, make_bundle("a"))
    blob = damage(local, version, "model.safetensors")
    found = hashlib.sha256(blob.read_bytes()).hexdigest()
    message = f"model.safetensors of zerovl@1 is damaged: expected sha256 {blob.name}, found {found}"
    with pytest.raises(DamagedError, match=message):
        transfer.verify(local.store, version)
    with pytest.raises(DamagedError, match=message):
        transfer.pull(local.store, version, tmp_path / "out" / "model")
    assert os.listdir(tmp_path / "out") == []
    # The way out that the message names.
    blob.unlink()
    with pytest.raises(DamagedError, match="found nothing"):
        transfer.verify(local.store, version)
    with pytest.raises(DamagedError, match="found nothing"):
        transfer.pull(local.store, version, tmp_path / "out" / "model")
    assert publish(local, make_bundle("a")) == version
    transfer.verify(local.store, version)


def test_a_flipped_byte_in_a_bucket_is_found(moto_bucket: str, make_bundle: Bundle, tmp_path: Path) -> None:
    import boto3

    registry = Registry(open_store(f"s3://{moto_bucket}"))
    version = publish(registry, make_bundle("a"))
    key = f"zerovl/blobs/sha256/{version.files['config.json'].sha256}"
    boto3.session.Session().client("s3").put_object(Bucket=moto_bucket, Key=key, Body=b'{"embed_dim": 9}')
    with pytest.raises(DamagedError, match=r"config.json of zerovl@1 is damaged"):
        transfer.verify(registry.store, version)
    with pytest.raises(DamagedError, match=r"config.json of zerovl@1 is damaged"):
        transfer.pull(registry.store, version, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pull_does_not_write_over_things(local: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    version = publish(local, make_bundle("a"))
    (tmp_path / "empty").mkdir()
    transfer.pull(local.store, version, tmp_path / "empty")
    with pytest.raises(ZeroVLError, match="exists and is not empty"):
        transfer.pull(local.store, version, tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ZeroVLError, match="file"):
        transfer.pull(local.store, version, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_pull_onto_a_full_disk_leaves_nothing(
    local: Registry, make_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(local, make_bundle("a"))

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "sync_folder", full)
    with pytest.raises(ZeroVLError, match=r"No space left on device.*; free 5.05 kB there"):
        transfer.pull(local.store, version, tmp_path / "out" / "model")
    assert os.listdir(tmp_path / "out") == []


def test_pull_goes_on_where_it_was_cut_off(
    local: Registry, make_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(local, make_bundle("a"))
    download, asked = FolderStore.download, []

    def cut(self: FolderStore, key: str, path: Path) -> None:
        asked.append(path.name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        download(self, key, path)

    monkeypatch.setattr(FolderStore, "download", cut)
    with pytest.raises(KeyboardInterrupt):
        transfer.pull(local.store, version, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    transfer.pull(local.store, version, tmp_path / "model")
    assert sorted(asked) == sorted([*version.files, asked[2]])  # what was whole is not fetched again
    assert sorted(os.listdir(tmp_path / "model")) == sorted(version.files)


def test_what_a_killed_pull_left_stays_out_of_the_folder(local: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    version = publish(local, make_bundle("a"))
    aside = transfer.aside_folder(tmp_path / "model", version, alone=True)
    aside.mkdir()
    (aside / ".model.safetensors.0123.part").write_bytes(b"half")
    transfer.pull(local.store, version, tmp_path / "model")
    assert sorted(os.listdir(tmp_path / "model")) == sorted(version.files)


def test_a_damaged_rest_of_a_download_is_not_taken_for_a_damaged_release(
    moto_bucket: str, make_bundle: Bundle, tmp_path: Path
) -> None:
    registry = Registry(open_store(f"s3://{moto_bucket}/team"))
    version = publish(registry, make_bundle("a"))
    aside = transfer.aside_folder(tmp_path / "model", version, alone=True)
    aside.mkdir()
    (aside / ".model.safetensors.part").write_bytes(bytes(4))  # as after a power cut
    transfer.pull(registry.store, version, tmp_path / "model")
    assert sorted(os.listdir(tmp_path / "model")) == sorted(version.files)


@pytest.mark.parametrize(
    "name", ["weights.pth", "deep/optimiser.PT", "state.pkl", "pytorch_model.bin", "../up", "/abs", "a/../b", ".hidden"]
)
def test_unsafe_files_are_refused(local: Registry, make_bundle: Bundle, name: str) -> None:
    with pytest.raises(ZeroVLError, match=r"pickle|not allowed"):
        publish(local, {**make_bundle("a"), name: b"data"})
    assert local.names() == []
    # Nor are they fetched from a store that someone else filled.
    version = publish(local, make_bundle("b"))
    record = json.loads(version.to_bytes())
    record["files"][name] = record["files"].pop("config.json")
    local.store.create("zerovl/versions/2.json", json.dumps(record).encode())
    with pytest.raises(ZeroVLError, match=r"pickle|not allowed"):
        local.resolve("zerovl@2")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"name": 1', b"\xff"])
def test_a_broken_record_is_named(local: Registry, data: bytes) -> None:
    local.store.create("zerovl/versions/1.json", data)
    with pytest.raises(ZeroVLError, match=r"zerovl/versions/1.json: this is not a record"):
        local.resolve("zerovl@1")


def test_digests_that_are_paths_are_refused(local: Registry, make_bundle: Bundle) -> None:
    version = publish(local, make_bundle("a"))
    record = json.loads(version.to_bytes())
    record["files"]["config.json"]["sha256"] = "../../secret"
    local.store.create("zerovl/versions/2.json", json.dumps(record).encode())
    with pytest.raises(ZeroVLError, match="64 hexadecimal digits"):
        local.resolve("zerovl@2")


def test_what_does_not_exist_is_told_with_what_does(registry: Registry, make_bundle: Bundle) -> None:
    with pytest.raises(ZeroVLError, match="there is no zerovl@1; the store has no models at all"):
        registry.resolve("zerovl@1")
    version = publish(registry, make_bundle("a"))
    assert registry.append(Move("zerovl", "staging", 1, "promote", version.number, now(), "tester", "", None))
    with pytest.raises(ZeroVLError, match="no zerovl@7; zerovl has the versions 1 and the aliases: staging"):
        registry.resolve("zerovl@7")
    with pytest.raises(ZeroVLError, match="no zerovl@production; zerovl has the versions 1 and the aliases: staging"):
        registry.resolve("zerovl@production")
    with pytest.raises(ZeroVLError, match="no other@1; the store has zerovl"):
        registry.resolve("other@1")
    with pytest.raises(ZeroVLError, match="no zerovl@nothing"):
        registry.holder_before("zerovl", "nothing")


def test_names_and_references_are_checked(local: Registry) -> None:
    assert split_reference("zerovl@production") == ("zerovl", "production")
    for reference in ("zerovl", "zerovl@", "@production", "a b@c", "a@b/c", "a/b@c"):
        with pytest.raises(ZeroVLError, match=r"NAME@ALIAS|use letters"):
            split_reference(reference)
    move = Move("zerovl", "production", 1, "promote", 1, now(), "", "", None)
    with pytest.raises(ZeroVLError, match="would look like a version"):
        local.append(replace(move, alias="3"))
    with pytest.raises(ZeroVLError, match="use letters"):
        local.append(replace(move, alias="../x"))
    with pytest.raises(ZeroVLError, match="use letters"):
        local.append(replace(move, name="a/b"))
