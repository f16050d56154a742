"""What of a release comes through: uploads and downloads that are cut off, damaged bytes, a full disk."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.registries import Bundle, damage, publish
from zerovl.errors import ZeroVLError
from zerovl.registry import transfer
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.registry.stores.folder import FolderStore
from zerovl.registry.transfer import DamagedError


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
