"""Copies of a run's checkpoints on S3: whole or absent, every digest compared when one is fetched.

    PREFIX/RUN/step-00000100-3f2a90c1/shard-00001-of-00001.safetensors, state.json
    PREFIX/RUN/step-00000100-3f2a90c1/metrics.jsonl, micro_batch.json, kept_graphs.json   of the run's folder
    PREFIX/RUN/step-00000100-3f2a90c1/manifest.json                                       size and sha256 of each

The manifest is written last and makes a copy whole. Each upload has a folder of its own, so that another node that
still trains the same run cannot mix its files in. The registry's stores would not do: they never overwrite, probe for
conditional writes that copies do not need, and `training` lies on a floor that knows no registry.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerovl import s3
from zerovl.engine.checkpoint_folder import checkpoint_path
from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write, disk_is_full, sha256_file, sync_folder
from zerovl.s3_files import Told, get_file, put_bytes, put_file
from zerovl.sizing.decisions import KEPT_GRAPHS_FILE, MICRO_BATCH_FILE
from zerovl.workspace import RUN_LOG

MANIFEST_FILE = "manifest.json"
_STATE = "state.json"
RUN_FILES = (RUN_LOG, MICRO_BATCH_FILE, KEPT_GRAPHS_FILE)  # of the run's folder: what going on needs or shows
_COPY = re.compile(r"step-(\d{8,})-[0-9a-f]{8}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BLOCK = 1 << 20


class DamagedCopyError(ZeroVLError):
    """A copy is not what its manifest says, or its manifest is none."""


@dataclass(frozen=True)
class Copy:
    """A checkpoint in the bucket that has a manifest."""

    step: int
    name: str  # of its folder
    written: Any = field(compare=False)  # when the manifest was, by the server's clock


@dataclass(frozen=True)
class Snapshot:
    """The files of a checkpoint, open: those that are removed meanwhile go up all the same."""

    step: int
    number: int  # of the checkpoint, counted over all restarts of the run
    descriptors: Mapping[str, int]  # by name, of the checkpoint's folder
    contents: Mapping[str, bytes]  # by name, of the run's folder

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        sizes = [os.fstat(descriptor).st_size for descriptor in self.descriptors.values()]
        return sum(sizes) + sum(map(len, self.contents.values()))


@contextmanager
def snapshot(run: Path, step: int) -> Iterator[Snapshot]:
    """Open a whole checkpoint of a run's folder; raises `FileNotFoundError` where it was removed just now."""
    folder = checkpoint_path(run / "checkpoints", step)
    with ExitStack() as opened:
        descriptors = {path.name: opened.enter_context(open(path, "rb")).fileno() for path in sorted(folder.iterdir())}
        if _STATE not in descriptors:
            raise FileNotFoundError(folder / _STATE)
        number = int(json.loads(os.pread(descriptors[_STATE], _BLOCK, 0))["number"])
        contents = {name: (run / name).read_bytes() for name in RUN_FILES if (run / name).is_file()}
        yield Snapshot(step, number, descriptors, contents)


class CopiedCheckpoints:
    """The copies of one run below s3://bucket/prefix."""

    def __init__(self, uri: str, run: str, patience: s3.Patience | None = None) -> None:
        place = s3.parse(uri)
        self._bucket = s3.Bucket(place.bucket, patience)
        self._prefix = "/".join(filter(None, (place.path.strip("/"), run))) + "/"
        self._stay: set[str] = set()  # folders that every-so-many-th ones are known to be

    @property
    def uri(self) -> str:
        """Where they are, as messages say it."""
        return f"{s3.PREFIX}{self._bucket.name}/{self._prefix}".rstrip("/")

    def newest_first(self) -> list[Copy]:
        """Return the copies that have a manifest; of a step the one that was written last comes first."""
        copies, _ = self._listed()
        return sorted(copies, key=lambda copy: (copy.step, copy.written), reverse=True)

    def upload(self, files: Snapshot, told: Told) -> None:
        """Write a copy whose manifest comes last; raises `ZeroVLError`, and what `told` raises."""
        folder = f"{checkpoint_path(Path(), files.step).name}-{uuid.uuid4().hex[:8]}"
        where = f"{self.uri}: cannot write {folder}"
        listed: dict[str, dict[str, dict[str, Any]]] = {"checkpoint": {}, "run": {}}
        for name, descriptor in files.descriptors.items():
            listed["checkpoint"][name] = _describe(descriptor, told)
            put_file(self._bucket, self._key(folder, name), descriptor, where, told)
        for name, content in files.contents.items():
            listed["run"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            put_bytes(self._bucket, self._key(folder, name), content, where)
            told(len(content))
        manifest = {"format": 1, "step": files.step, "number": files.number, **listed}
        put_bytes(self._bucket, self._key(folder, MANIFEST_FILE), json.dumps(manifest, indent=1).encode(), where)

    def fetch(self, copy: Copy, run: Path, told: Told) -> None:
        """Write a copy into a run's folder, the checkpoint whole or not at all.

        Raises:
            DamagedCopyError: a digest is another one, or something is missing.
            ZeroVLError: the server cannot be asked, or the disk is full.
        """
        manifest = self._manifest(copy)
        final = checkpoint_path(run / "checkpoints", copy.step)
        aside = final.with_name(f".{final.name}.fetched.part")  # a killed start leaves it; the next one clears it away
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            for name, info in manifest["checkpoint"].items():
                self._fetch_file(copy, name, info, aside / name, told)
            for name, info in manifest["run"].items():
                fetched = aside / f".{name}"
                self._fetch_file(copy, name, info, fetched, told)
                with atomic_write(run / name) as file:
                    file.write(fetched.read_bytes())
                fetched.unlink()
            sync_folder(aside)
            aside.rename(final)  # last: with it goes what was decided for this run
            sync_folder(final.parent)
        except OSError as error:
            fix = "free some space" if disk_is_full(error) else "check that disk"
            raise ZeroVLError(
                f"{final}: cannot be fetched from {self.uri}/{copy.name}: {error}; {fix} and run it again"
            ) from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def drop_old(self, step: int, keep: int, keep_every: int) -> None:
        """After the upload of `step`, remove what `keep` newer ones replace, and rests of uploads that were cut off.

        Later steps stay: they are of another node, or were passed over and may be repaired. Raises `ZeroVLError`.
        """
        copies, unfinished = self._listed()
        past = sorted((copy for copy in copies if copy.step <= step), key=lambda copy: (copy.step, copy.written))
        newest = {copy.step: copy for copy in past}
        kept = {newest[step].name for step in sorted(newest)[-keep:]}
        for copy in past:
            replaced = copy != newest[copy.step]
            if replaced or not (copy.name in kept or self._stays(copy, keep_every)):
                self._remove(copy.name)
        for its, name in unfinished:
            if its < step:
                self._remove(name)

    def _stays(self, copy: Copy, keep_every: int) -> bool:
        if keep_every and copy.name not in self._stay:
            with suppress(DamagedCopyError):  # nothing could resume from it
                if self._manifest(copy)["number"] % keep_every == 0:
                    self._stay.add(copy.name)
        return copy.name in self._stay

    def _remove(self, folder: str) -> None:
        """Take the manifest away first: a kill in between must not leave half a copy that looks whole."""
        names = sorted(self._names(f"{folder}/"), key=lambda name: name != MANIFEST_FILE)
        with self._bucket.explained(f"{self.uri}: cannot delete {folder}"):
            for name in names:
                self._bucket.client.delete_object(Bucket=self._bucket.name, Key=self._key(folder, name))

    def _manifest(self, copy: Copy) -> dict[str, Any]:
        """Return the checked manifest; its names become names of files."""
        where = f"{self.uri}/{copy.name}/{MANIFEST_FILE}"
        try:
            content = b"".join(self._bucket.blocks(self._key(copy.name, MANIFEST_FILE), where))
            values = json.loads(content)
            if values["format"] != 1:
                raise ZeroVLError(f"{where}: format {values['format']!r} is not known here; take a newer zerovl")
            names = [*values["checkpoint"], *values["run"]]
            infos = [*values["checkpoint"].values(), *values["run"].values()]
            right = all(_NAME.fullmatch(name) for name in names) and set(values["run"]) <= set(RUN_FILES)
            right &= all(isinstance(info["bytes"], int) and isinstance(info["sha256"], str) for info in infos)
            right &= values["step"] == copy.step and isinstance(values["number"], int)
        except (ValueError, KeyError, TypeError, AttributeError):
            right = False
        except s3.AnswerError as error:
            if not error.is_missing_key:
                raise
            raise DamagedCopyError(f"{where}: was removed just now") from None
        if not right:
            raise DamagedCopyError(f"{where}: is not a manifest of step {copy.step}")
        checked: dict[str, Any] = values
        return checked

    def _fetch_file(self, copy: Copy, name: str, info: dict[str, Any], path: Path, told: Told) -> None:
        where = f"{self.uri}/{copy.name}/{name}"
        try:
            get_file(self._bucket, self._key(copy.name, name), path, info["bytes"], where, told)
        except s3.AnswerError as error:
            if not (error.is_missing_key or error.is_past_the_end):
                raise
            raise DamagedCopyError(f"{where}: damaged, {'missing' if error.is_missing_key else 'cut off'}") from None
        if (found := sha256_file(path)) != info["sha256"]:
            raise DamagedCopyError(f"{where}: damaged, expected sha256 {info['sha256']}, found {found}")

    def _listed(self) -> tuple[list[Copy], list[tuple[int, str]]]:
        """Return the copies that have a manifest, and step and name of the folders that have none."""
        written: dict[str, Any] = {}
        folders: set[str] = set()
        for item in self._objects(""):
            folder, _, name = item["Key"].removeprefix(self._prefix).partition("/")
            if _COPY.fullmatch(folder):
                folders.add(folder)
                if name == MANIFEST_FILE:
                    written[folder] = item["LastModified"]
        steps = {name: int(name.split("-")[1]) for name in folders}
        whole = [Copy(steps[name], name, when) for name, when in written.items()]
        return whole, [(steps[name], name) for name in folders - written.keys()]

    def _names(self, prefix: str) -> list[str]:
        return [item["Key"].removeprefix(self._prefix + prefix) for item in self._objects(prefix)]

    def _objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        with self._bucket.explained(f"{self.uri}: cannot list copies of checkpoints"):
            pages = self._bucket.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket.name, Prefix=self._prefix + prefix):
                yield from page.get("Contents", [])

    def _key(self, folder: str, name: str) -> str:
        return f"{self._prefix}{folder}/{name}"


def _describe(descriptor: int, told: Told) -> dict[str, Any]:
    """Size and sha256 of an open file, wherever it stands."""
    digest, start = hashlib.sha256(), 0
    while block := os.pread(descriptor, _BLOCK, start):
        digest.update(block)
        start += len(block)
        told(0)  # which may end the transfer
    return {"bytes": start, "sha256": digest.hexdigest()}
