"""Shards that an interrupted `prepare` had packed already, taken over by the next one.

DVC deletes a stage's outputs before it runs again, so each shard has a second name (a hard link, which takes no
room) in a folder that is no output, with its rows beside it. An entry is found by all that it follows from: the
records, the settings, the program, and size and time of each file with a picture. It is used where its bytes are still
those that were written. The folder goes once all is done. Files that are only there for a while (fetched from S3, or
taken out of a Parquet table) are new each time, so what lies in them is packed again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import PIL

from zerovl.data.filtering.left_out import LeftOut
from zerovl.data.raw.pack import Packed, Unit, pack
from zerovl.files import atomic_write, disk_is_full, sha256_file


@dataclass(frozen=True, slots=True)
class KeptUnits:
    """Packs units, and keeps what it packs until the end; picklable.

    Attributes:
        folder: where entries lie; on the disk of the shards.
        code: digest of the program that packs.
        passing: folder of files that are there for a while only.
    """

    folder: str
    code: str
    passing: str

    def pack(self, unit: Unit, shards: str | None = None) -> Packed:
        """Take over the unit if it was packed before, else pack it; raises as `pack`.

        Its shard is written below another folder than the unit says where `shards` is one.
        """
        name = self._name(unit)
        if shards is not None:
            unit = replace(unit, shards=shards)
        if name is None:
            return pack(unit)
        entry = Path(self.folder, name)
        packed = _taken_over(unit, entry)
        if packed is None:
            packed = pack(unit)
            _keep(packed, entry)
        return packed

    def _name(self, unit: Unit) -> str | None:
        """Return the name of a unit's entry; None where it has files that differ each time."""
        digest = hashlib.sha256(f"{self.code} {PIL.__version__} {unit!r}".encode("utf-8", "backslashreplace"))
        for path in dict.fromkeys(record.picture.path for record in unit.records if record.picture):
            if os.path.dirname(path) == self.passing:
                return None
            digest.update(_state(path))
        return digest.hexdigest()


def _state(path: str) -> bytes:
    """Return what changes when a file does, also by a tool that puts the old time back, or when its rights do."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return b"none"
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}".encode()


def _taken_over(unit: Unit, entry: Path) -> Packed | None:
    """Return the kept unit, its shard in place again; None where there is none, or not as it was written."""
    shard, kept = Path(unit.shards, unit.name), entry.with_suffix(".tar")
    try:
        values = json.loads(entry.with_suffix(".json").read_text(encoding="utf-8"))
        if values["bytes"]:
            if sha256_file(kept) != values["sha256"]:
                return None
            shard.parent.mkdir(parents=True, exist_ok=True)
            os.link(kept, shard)
    except (OSError, ValueError):
        return None
    left_out = tuple(_left_out(each) for each in values["left_out"])
    return Packed(
        unit,
        values["rows"],
        values["samples"],
        values["bytes"],
        values["sha256"],
        tuple(values["faults"]),
        left_out,
        taken_over=True,
    )


def _keep(packed: Packed, entry: Path) -> None:
    """Write the entry of a unit, its rows last; on a disk without hard links there is none."""
    values: dict[str, Any] = {name: getattr(packed, name) for name in ("rows", "samples", "bytes", "sha256", "faults")}
    values["left_out"] = [asdict(each) | {"picture": _text(each.picture)} for each in packed.left_out]
    kept = entry.with_suffix(".tar")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        if packed.bytes:
            kept.unlink(missing_ok=True)
            os.link(Path(packed.unit.shards, packed.unit.name), kept)
        with atomic_write(entry.with_suffix(".json"), "w") as file:
            json.dump(values, file)
    except OSError as error:
        if disk_is_full(error):
            raise


def _text(picture: bytes | None) -> str | None:
    return None if picture is None else base64.b64encode(picture).decode("ascii")


def _left_out(values: dict[str, Any]) -> LeftOut:
    picture = values["picture"]
    whole = None if picture is None else base64.b64decode(picture)
    return LeftOut(**values | {"picture": whole, "captions": tuple(values["captions"])})
