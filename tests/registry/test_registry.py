from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from zerovl.errors import ZeroVLError
from zerovl.registry import cache
from zerovl.registry import registry as registry_module
from zerovl.registry.records import Move, Version
from zerovl.registry.registry import DamagedError, Registry, split_reference
from zerovl.registry.stores import open_store
from zerovl.registry.stores.folder import FolderStore

Bundle = Callable[..., dict[str, Path | bytes]]


def publish(registry: Registry, files: dict[str, Path | bytes], **changes: object) -> Version:
    arguments: dict[str, object] = {"metrics": {"overall": {"rsum": 1.0}}, "provenance": {}, "by": "tester"}
    return registry.publish("zerovl", files, **{**arguments, **changes})  # type: ignore[arg-type]


def unchecked(folder: Path) -> str:
    return ""


def promote(registry: Registry, version: Version, alias: str = "production") -> Move | None:
    current = registry.current(version.name, alias)
    after = current.number if current else 0
    return registry.promote(version, alias, why="better", by="tester", after=after, check=unchecked)


@pytest.fixture(params=["folder", "s3"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    if request.param == "folder":
        return Registry(open_store(str(tmp_path / "registry")))
    return Registry(open_store(f"s3://{request.getfixturevalue('moto_bucket')}/team"))


@pytest.fixture
def local(tmp_path: Path) -> Registry:
    return Registry(FolderStore(tmp_path / "registry"))


def damage(registry: Registry, version: Version, path: str) -> Path:
    """Flip one bit in the middle of a blob of a folder store."""
    blob = Path(registry.store.uri) / version.name / "blobs" / "sha256" / version.files[path].sha256
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    return blob


def test_push_and_pull(registry: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    files = make_bundle("a", size=20 << 20)
    version = publish(registry, files, provenance={"git": {"commit": "abc"}}, verdict={"passed": True, "reasons": []})
    assert version.reference == "zerovl@1"
    assert registry.resolve("zerovl@1") == version
    assert registry.names() == ["zerovl"]
    registry.verify(version)
    registry.pull(version, tmp_path / "out" / "model")
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
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        numbers = pool.map(_publish_one, [(registry.store.uri, content) for content in contents], chunksize=1)
    distinct = len(set(contents))
    assert set(numbers) == set(range(1, distinct + 1))
    assert registry.numbers("zerovl") == list(range(1, distinct + 1))
    for number, content in zip(numbers, contents, strict=True):
        version = registry.version("zerovl", number)
        registry.verify(version)
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
    registry.verify(registry.resolve("zerovl@1"))


def test_a_flipped_byte_is_found(local: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    version = publish(local, make_bundle("a"))
    blob = damage(local, version, "model.safetensors")
    found = hashlib.sha256(blob.read_bytes()).hexdigest()
    message = f"model.safetensors of zerovl@1 is damaged: expected sha256 {blob.name}, found {found}"
    with pytest.raises(DamagedError, match=message):
        local.verify(version)
    with pytest.raises(DamagedError, match=message):
        local.pull(version, tmp_path / "out" / "model")
    assert os.listdir(tmp_path / "out") == []
    with pytest.raises(DamagedError, match=message):
        promote(local, version)
    assert local.current("zerovl", "production") is None
    # The way out that the message names.
    blob.unlink()
    with pytest.raises(DamagedError, match="found nothing"):
        local.verify(version)
    with pytest.raises(DamagedError, match="found nothing"):
        local.pull(version, tmp_path / "out" / "model")
    assert publish(local, make_bundle("a")) == version
    local.verify(version)


def test_a_flipped_byte_in_a_bucket_is_found(moto_bucket: str, make_bundle: Bundle, tmp_path: Path) -> None:
    import boto3

    registry = Registry(open_store(f"s3://{moto_bucket}"))
    version = publish(registry, make_bundle("a"))
    key = f"zerovl/blobs/sha256/{version.files['config.json'].sha256}"
    boto3.session.Session().client("s3").put_object(Bucket=moto_bucket, Key=key, Body=b'{"embed_dim": 9}')
    with pytest.raises(DamagedError, match=r"config.json of zerovl@1 is damaged"):
        registry.verify(version)
    with pytest.raises(DamagedError, match=r"config.json of zerovl@1 is damaged"):
        registry.pull(version, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pull_does_not_write_over_things(local: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    version = publish(local, make_bundle("a"))
    (tmp_path / "empty").mkdir()
    local.pull(version, tmp_path / "empty")
    with pytest.raises(ZeroVLError, match="exists and is not empty"):
        local.pull(version, tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ZeroVLError, match="file"):
        local.pull(version, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_pull_onto_a_full_disk_leaves_nothing(
    local: Registry, make_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(local, make_bundle("a"))

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(registry_module, "sync_folder", full)
    with pytest.raises(ZeroVLError, match=r"No space left on device.*free .* MB"):
        local.pull(version, tmp_path / "out" / "model")
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
        local.pull(version, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    local.pull(version, tmp_path / "model")
    assert sorted(asked) == sorted([*version.files, asked[2]])  # what was whole is not fetched again
    assert sorted(os.listdir(tmp_path / "model")) == sorted(version.files)


def test_what_a_killed_pull_left_stays_out_of_the_folder(local: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    version = publish(local, make_bundle("a"))
    aside = cache.aside_folder(tmp_path / "model", version, alone=True)
    aside.mkdir()
    (aside / ".model.safetensors.0123.part").write_bytes(b"half")
    local.pull(version, tmp_path / "model")
    assert sorted(os.listdir(tmp_path / "model")) == sorted(version.files)


def test_a_damaged_rest_of_a_download_is_not_taken_for_a_damaged_release(
    moto_bucket: str, make_bundle: Bundle, tmp_path: Path
) -> None:
    registry = Registry(open_store(f"s3://{moto_bucket}/team"))
    version = publish(registry, make_bundle("a"))
    aside = cache.aside_folder(tmp_path / "model", version, alone=True)
    aside.mkdir()
    (aside / ".model.safetensors.part").write_bytes(bytes(4))  # as after a power cut
    registry.pull(version, tmp_path / "model")
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
    with pytest.raises(ZeroVLError, match=r"zerovl/versions/1.json: not a record"):
        local.resolve("zerovl@1")


def test_digests_that_are_paths_are_refused(local: Registry, make_bundle: Bundle) -> None:
    version = publish(local, make_bundle("a"))
    record = json.loads(version.to_bytes())
    record["files"]["config.json"]["sha256"] = "../../secret"
    local.store.create("zerovl/versions/2.json", json.dumps(record).encode())
    with pytest.raises(ZeroVLError, match="64 hexadecimal digits"):
        local.resolve("zerovl@2")


def test_history_and_rollback(registry: Registry, make_bundle: Bundle) -> None:
    versions = [publish(registry, make_bundle(content)) for content in "abc"]
    for version in versions:
        assert promote(registry, version)
    again = promote(registry, versions[2])
    assert again is not None
    assert again.number == 3  # it has the alias already
    assert registry.resolve("zerovl@production") == versions[2]
    assert registry.rollback("zerovl", "production", why="bad", by="me", check=unchecked).version == 2
    assert registry.rollback("zerovl", "production", why="worse", by="me", check=unchecked).version == 1
    with pytest.raises(ZeroVLError, match="version 1 had no one before it"):
        registry.rollback("zerovl", "production", why="", by="me", check=unchecked)
    promote(registry, versions[2])
    assert registry.rollback("zerovl", "production", why="", by="me", check=unchecked).version == 1
    history = registry.history("zerovl", "production")
    assert [move.number for move in history] == [7, 6, 5, 4, 3, 2, 1]
    assert [move.version for move in history] == [1, 3, 1, 2, 3, 2, 1]
    assert [move.action for move in history[2:5]] == ["rollback", "rollback", "promote"]
    assert (history[3].why, history[3].by) == ("bad", "me")
    assert history[6].when < history[0].when
    assert registry.aliases("zerovl")["production"] == history[0]
    assert registry.resolve("zerovl@production") == versions[0]


def test_ten_moves_are_in_the_order_of_numbers(local: Registry, make_bundle: Bundle) -> None:
    versions = [publish(local, make_bundle(content)) for content in "ab"]
    for index in range(11):
        promote(local, versions[index % 2])
    assert local.resolve("zerovl@production") == versions[0]
    assert [move.number for move in local.history("zerovl", "production")] == list(range(11, 0, -1))


def test_promotion_rests_on_the_holder_that_was_seen(local: Registry, make_bundle: Bundle) -> None:
    first, second, third = (publish(local, make_bundle(content)) for content in "abc")
    promote(local, first)
    promote(local, second)
    assert local.promote(third, "production", why="", by="", after=1, check=unchecked) is None
    assert local.resolve("zerovl@production") == second


def test_promotion_checks_what_lies_in_the_store(registry: Registry, make_bundle: Bundle) -> None:
    version = publish(registry, make_bundle("a"))
    seen: list[bytes] = []

    def look(folder: Path) -> str:
        seen.append((folder / "model.safetensors").read_bytes())
        return "looks well"

    move = registry.promote(version, "production", why="", by="", after=0, check=look)
    assert move is not None
    assert (move.check, seen) == ("looks well", [b"a" * 5000])
    assert registry.history("zerovl", "production") == [move]


def test_a_failing_check_leaves_the_alias_where_it_is(local: Registry, make_bundle: Bundle) -> None:
    first, second, third = (publish(local, make_bundle(content)) for content in "abc")
    promote(local, first)
    promote(local, second)

    def refuse(folder: Path) -> str:
        raise ZeroVLError("it does not score as when it was made")

    with pytest.raises(ZeroVLError, match=r"zerovl@3 stays without the alias: it does not score"):
        local.promote(third, "production", why="", by="", after=2, check=refuse)
    with pytest.raises(ZeroVLError, match=r"zerovl@1 stays without the alias: it does not score"):
        local.rollback("zerovl", "production", why="", by="", check=refuse)
    assert local.resolve("zerovl@production") == second
    assert len(local.history("zerovl", "production")) == 2


def test_a_whole_copy_in_the_cache_does_not_hide_damage_in_the_store(local: Registry, make_bundle: Bundle) -> None:
    version = publish(local, make_bundle("a"))
    cache.cached(local, version, cache.cache_folder())
    damage(local, version, "model.safetensors")
    with pytest.raises(DamagedError, match=r"model.safetensors of zerovl@1 is damaged"):
        promote(local, version)
    assert local.current("zerovl", "production") is None


def test_a_move_without_a_check_is_read(local: Registry, make_bundle: Bundle) -> None:
    """As registries of before the check wrote them."""
    move = promote(local, publish(local, make_bundle("a")))
    assert move is not None
    record = json.loads(move.to_bytes())
    del record["check"]
    local.store.create("zerovl/aliases/older/1.json", json.dumps({**record, "alias": "older"}).encode())
    assert local.resolve("zerovl@older").number == 1


def _promote_until_moved(arguments: tuple[str, int]) -> Move:
    """Look at the holder, decide, move; again where someone else moved the alias meanwhile."""
    uri, number = arguments
    registry = Registry(open_store(uri))
    while not (move := promote(registry, registry.version("zerovl", number))):
        pass
    return move


def test_a_race_of_sixteen_promoters_is_one_history(moto_bucket: str, make_bundle: Bundle) -> None:
    registry = Registry(open_store(f"s3://{moto_bucket}/team"))
    versions = [publish(registry, make_bundle(chr(ord("a") + index), size=100)) for index in range(16)]
    with ThreadPoolExecutor(16) as executor:
        moves = list(executor.map(_promote_until_moved, [(registry.store.uri, v.number) for v in versions]))
    history = registry.history("zerovl", "production")
    assert [move.number for move in history] == list(range(16, 0, -1))
    assert sorted(moves, key=lambda move: -move.number) == history  # each was told its own move, and none is lost
    assert {move.version for move in history} == {version.number for version in versions}
    assert registry.resolve("zerovl@production").number == history[0].version


def test_of_many_promoters_each_move_is_kept_once(local: Registry, make_bundle: Bundle) -> None:
    versions = [publish(local, make_bundle(content)) for content in "abcdefgh"]
    moves: list[Move | None] = []
    barrier = threading.Barrier(8)

    def act(version: Version) -> None:
        barrier.wait()
        moves.append(local.promote(version, "production", why="", by="", after=0, check=unchecked))

    threads = [threading.Thread(target=act, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [move for move in moves if move]
    assert local.history("zerovl", "production") == won
    assert len(won) == 1


def test_a_rollback_overtaken_by_a_promotion_is_decided_again(local: Registry, make_bundle: Bundle) -> None:
    first, second, third = (publish(local, make_bundle(content)) for content in "abc")
    promote(local, first)
    promote(local, second)
    looks: list[Path] = []

    def overtaken(folder: Path) -> str:
        looks.append(folder)
        if len(looks) == 1:
            promote(local, third)
        return ""

    assert local.rollback("zerovl", "production", why="", by="", check=overtaken).version == second.number
    assert len(looks) == 2


def test_what_does_not_exist_is_told_with_what_does(registry: Registry, make_bundle: Bundle) -> None:
    with pytest.raises(ZeroVLError, match="there is no zerovl@1; the store has no models at all"):
        registry.resolve("zerovl@1")
    promote(registry, publish(registry, make_bundle("a")), "staging")
    with pytest.raises(ZeroVLError, match="no zerovl@7; zerovl has the versions 1 and the aliases: staging"):
        registry.resolve("zerovl@7")
    with pytest.raises(ZeroVLError, match="no zerovl@production; zerovl has the versions 1 and the aliases: staging"):
        registry.resolve("zerovl@production")
    with pytest.raises(ZeroVLError, match="no other@1; the store has zerovl"):
        registry.resolve("other@1")
    with pytest.raises(ZeroVLError, match="no zerovl@nothing"):
        registry.rollback("zerovl", "nothing", why="", by="", check=unchecked)


def test_names_and_references_are_checked(local: Registry, make_bundle: Bundle) -> None:
    assert split_reference("zerovl@production") == ("zerovl", "production")
    for reference in ("zerovl", "zerovl@", "@production", "a b@c", "a@b/c", "a/b@c"):
        with pytest.raises(ZeroVLError, match=r"NAME@ALIAS|use letters"):
            split_reference(reference)
    version = publish(local, make_bundle("a"))
    with pytest.raises(ZeroVLError, match="would look like a version"):
        promote(local, version, "3")
    with pytest.raises(ZeroVLError, match="use letters"):
        promote(local, version, "../x")
    with pytest.raises(ZeroVLError, match="use letters"):
        promote(local, replace(version, name="a/b"))
