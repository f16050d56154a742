from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.registries import Bundle, processes
from zerovl import params_file
from zerovl.errors import ZeroVLError
from zerovl.registry import fetch, transfer
from zerovl.registry.cache import cache_folder
from zerovl.registry.records import Move, Version, now
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.registry.stores.base import Store
from zerovl.registry.stores.folder import FolderStore


def release(uri: str, files: dict[str, Path | bytes]) -> None:
    registry = Registry(open_store(uri))
    version = registry.publish("zerovl", files, metrics={}, provenance={}, by="tester")
    assert registry.append(Move("zerovl", "production", 1, "promote", version.number, now(), "tester", "", None))


@pytest.fixture
def store(tmp_path: Path, make_bundle: Bundle) -> Path:
    release(str(tmp_path / "store"), make_bundle("a"))
    return tmp_path / "store"


def test_a_bundle_folder_is_taken_as_it_is(
    tmp_path: Path, make_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = make_bundle("a")["model.safetensors"]
    assert isinstance(weights, Path)
    assert fetch.resolve(str(weights.parent)) == weights.parent
    with pytest.raises(ZeroVLError, match=r"no config.json"):
        fetch.resolve(str(tmp_path))
    with pytest.raises(ZeroVLError, match="no such folder; name a bundle's folder, NAME@ALIAS"):
        fetch.resolve("nowhere")
    monkeypatch.chdir(weights.parent)
    for nothing in ("", " "):  # is not the folder that one is in
        for look in (fetch.resolve, fetch.check_reference):
            with pytest.raises(ZeroVLError, match="no such folder; name a bundle's folder, NAME@ALIAS"):
                look(nothing)


def test_releases_by_alias_and_number(store: Path) -> None:
    folder = fetch.resolve(f"{store}/zerovl@production")
    assert fetch.resolve(f"{store}/zerovl@1") == folder
    assert (folder / "model.safetensors").read_bytes() == b"a" * 5000
    with pytest.raises(ZeroVLError, match="zerovl has the versions 1 and the aliases: production"):
        fetch.resolve(f"{store}/zerovl@staging")


def test_releases_from_a_bucket(moto_bucket: str, make_bundle: Bundle) -> None:
    release(f"s3://{moto_bucket}/team", make_bundle("a"))
    folder = fetch.resolve(f"s3://{moto_bucket}/team/zerovl@production")
    assert (folder / "model.safetensors").read_bytes() == b"a" * 5000
    with pytest.raises(ZeroVLError, match="there is no zerovl@production"):
        fetch.resolve(f"s3://{moto_bucket}/zerovl@production")


def test_the_default_store(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fetch.default_store() == "registry"
    params_file.write(params_file.from_recipe({}, ["register.store=store"], "test"), tmp_path / "params.yaml")
    assert fetch.default_store() == "store"
    folder = fetch.resolve("zerovl@production")
    monkeypatch.setenv("ZEROVL_STORE", str(store))
    assert fetch.resolve("zerovl@1") == folder
    monkeypatch.setenv("ZEROVL_STORE", str(tmp_path / "other"))
    with pytest.raises(ZeroVLError, match="no models at all"):
        fetch.resolve("zerovl@1")


@pytest.mark.parametrize(
    ("reference", "store", "name"),
    [
        ("s3://bucket/zerovl@production", "s3://bucket", "zerovl@production"),
        ("s3://bucket/a/b/zerovl@3", "s3://bucket/a/b", "zerovl@3"),
        ("/zerovl@3", "/", "zerovl@3"),
        ("some@place/zerovl@3", "some@place", "zerovl@3"),
        ("zerovl@3", "registry", "zerovl@3"),
    ],
)
def test_split_store(reference: str, store: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fetch.split_store(reference) == (store, name)


def test_a_second_use_reads_no_blob(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch.resolve(f"{store}/zerovl@1")

    def forbidden(*arguments: object) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(FolderStore, "download", forbidden)
    monkeypatch.setattr("zerovl.registry.release_files.describe_file", forbidden)
    assert fetch.resolve(f"{store}/zerovl@1") == folder


def test_a_touched_file_is_verified_and_kept(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch.resolve(f"{store}/zerovl@1")
    os.utime(folder / "config.json", (0, 0))
    monkeypatch.setattr(FolderStore, "download", None)
    assert fetch.resolve(f"{store}/zerovl@1") == folder
    assert json.loads((folder / ".verified.json").read_text())["config.json"][1] == 0


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "stamp"])
def test_a_damaged_cache_is_repaired(store: Path, harm: str) -> None:
    folder = fetch.resolve(f"{store}/zerovl@1")
    weights = folder / "model.safetensors"
    if harm == "flip":
        weights.write_bytes(b"b" + weights.read_bytes()[1:])
    elif harm == "cut":
        weights.write_bytes(b"")
    elif harm == "remove":
        weights.unlink()
    else:
        (folder / ".verified.json").write_text("{")
    assert fetch.resolve(f"{store}/zerovl@1") == folder
    assert weights.read_bytes() == b"a" * 5000
    assert os.listdir(folder.parent) == [folder.name]


def test_a_damaged_store_puts_nothing_into_the_cache(store: Path) -> None:
    for blob in (store / "zerovl" / "blobs" / "sha256").iterdir():
        blob.write_bytes(b"?" + blob.read_bytes()[1:])
    with pytest.raises(ZeroVLError, match="is damaged: expected sha256"):
        fetch.resolve(f"{store}/zerovl@1")
    assert not [path for path in cache_folder().rglob("*") if path.is_file()]


def _fetch_and_read(reference: str) -> tuple[str, bytes]:
    folder = fetch.resolve(reference)
    return str(folder), (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("damaged", [False, True])
def test_eight_processes_share_a_cache(store: Path, damaged: bool) -> None:
    reference = f"{store}/zerovl@production"
    if damaged:
        (fetch.resolve(reference) / "model.safetensors").write_bytes(b"broken")
    with processes(8) as pool:
        found = pool.map(_fetch_and_read, [reference] * 8, chunksize=1)
    assert len(set(found)) == 1
    assert found[0][1] == b"a" * 5000
    folder = Path(found[0][0])
    assert os.listdir(folder.parent) == [folder.name]


def test_without_file_locks_the_cache_stays_whole(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("zerovl.files.fcntl.flock", refuse)
    fill, reference = transfer.fill, f"{store}/zerovl@1"

    def overtaken(store: Store, version: Version, aside: Path) -> None:
        monkeypatch.setattr(transfer, "fill", fill)
        fetch.resolve(reference)  # another process, in the middle of our fetching
        fill(store, version, aside)

    monkeypatch.setattr(transfer, "fill", overtaken)
    folder = fetch.resolve(reference)
    assert (folder / "model.safetensors").read_bytes() == b"a" * 5000
    assert os.listdir(folder.parent) == [folder.name]


def test_fetching_imports_neither_torch_nor_the_pipeline(store: Path) -> None:
    script = f"""
import sys
from zerovl.commands import registry
from zerovl.registry import fetch
from zerovl.release import gate, model_card, promote, publish
fetch.resolve("{store}/zerovl@1")
banned = {{"torch", "timm", "transformers", "dvc", "prefect", "psutil", "boto3", "pyarrow", "great_expectations"}}
print(sorted(banned & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
