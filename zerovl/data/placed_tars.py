"""Pictures that stay in the tars that they came in: what a shard has in their place, and how they are read.

A shard of such samples has only `<key>.json` of each, in which `picture` says where the picture is: the sha256 of its
tar, offset, size and crc32. Where a tar lies stands once, in `tars.json` beside the shards, so that a tar may be moved
without another shard. The crc32 is compared at every read: a tar that has changed is found at the first sample that
is not what it was, whether it comes from the disk or from S3.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerovl import s3
from zerovl.data.byte_ranges import ByteRanges
from zerovl.errors import ZeroVLError
from zerovl.files import write_json

CATALOGUE = "tars.json"  # relative to data/shards
_PART = 16 << 20  # bytes of the catalogue that are asked for at once: memory for all of them is taken first


@dataclass(frozen=True, slots=True)
class PlacedPicture:
    """Where a picture lies in a tar that was not packed again."""

    tar: str  # sha256 of the whole tar
    offset: int  # of the picture's first byte, behind its header
    size: int  # bytes
    crc32: int


@dataclass(frozen=True, slots=True)
class TarPlace:
    """Where a tar lies: relative to the project, absolute, or an address on S3."""

    path: str
    bytes: int


class ChangedTarError(Exception):
    """Says that the bytes at a picture's place are not the picture; the message is the reason."""


def parse_placed(value: Any) -> PlacedPicture:
    """Return the picture that a sample's JSON names; raises `KeyError`, `TypeError`, `ValueError`."""
    return PlacedPicture(str(value["tar"]), int(value["offset"]), int(value["size"]), int(value["crc32"]))


def write_catalogue(shards: Path, tars: Mapping[str, TarPlace]) -> None:
    """Write where the tars lie, by their sha256; no file where there is none."""
    if tars:
        write_json(shards / CATALOGUE, {digest: asdict(place) for digest, place in sorted(tars.items())})


def read_catalogue(shards: ByteRanges, root: str) -> dict[str, TarPlace]:
    """Return where the tars lie, by their sha256; raises `ZeroVLError` where that is not beside the shards."""
    try:
        values = json.loads(_whole(shards, CATALOGUE))
        return {digest: TarPlace(str(value["path"]), int(value["bytes"])) for digest, value in values.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ZeroVLError(
            f"{root}/{CATALOGUE}: cannot be read ({error}), and says where the tars lie that were not packed again; "
            "get it back with `dvc pull`, copy it there with the shards, or run `dvc repro -f prepare`"
        ) from None


class PlacedTars:
    """Reads pictures from tars on this machine and on S3; picklable."""

    def __init__(self, root: str, shards: ByteRanges, local: ByteRanges, remote: ByteRanges) -> None:
        """Take the catalogue from `shards` under `root`, tars from `local` and, by their whole address, `remote`."""
        self._root = root
        self._shards = shards
        self._local = local
        self._remote = remote
        self._catalogue: dict[str, TarPlace] | None = None

    def read(self, picture: PlacedPicture) -> bytes:
        """Return a picture; raises `ZeroVLError` with tar and fix where its tar is missing or has changed."""
        path = self.path(picture)
        tars = self._remote if path.startswith(s3.PREFIX) else self._local
        try:
            try:
                return _unchanged(tars.read(path, picture.offset, picture.size), picture)
            except ChangedTarError:
                if not tars.renew(path):
                    raise
                return _unchanged(tars.read(path, picture.offset, picture.size), picture)
        except FileNotFoundError:
            raise ZeroVLError(
                f"{path}: no such tar, and its pictures were not packed again; bring it back (`dvc checkout`, `dvc "
                "pull`), or run `dvc repro -f prepare` without it"
            ) from None
        except ChangedTarError as error:
            raise ZeroVLError(
                f"{path}: has changed since prepare indexed it ({error}); bring back the tar as it was, or run "
                "`dvc repro -f prepare` to index it again"
            ) from None
        except OSError as error:
            raise ZeroVLError(
                f"{path}: cannot be read at byte {picture.offset} ({error}); check the disk or the store and run "
                "again: a run resumes from its last checkpoint"
            ) from None

    def path(self, picture: PlacedPicture) -> str:
        """Return where the tar of a picture lies; raises `ZeroVLError` where the catalogue lacks it."""
        if self._catalogue is None:
            self._catalogue = read_catalogue(self._shards, self._root)
        try:
            return self._catalogue[picture.tar].path
        except KeyError:
            raise ZeroVLError(
                f"{self._root}/{CATALOGUE}: lacks the tar {picture.tar[:12]}..., so it is not of these shards; get it "
                "back with `dvc pull`, or run `dvc repro -f prepare`"
            ) from None

    def close(self) -> None:
        """Close what is open; a later read opens it again."""
        self._local.close()
        self._remote.close()


def _whole(files: ByteRanges, path: str) -> bytes:
    data = bytearray()
    while len(part := files.read(path, len(data), _PART)) == _PART:
        data += part
    return bytes(data + part)


def _unchanged(data: bytes, picture: PlacedPicture) -> bytes:
    if len(data) < picture.size:
        raise ChangedTarError(f"{picture.size} bytes expected at byte {picture.offset}, {len(data)} found")
    if zlib.crc32(data) != picture.crc32:
        raise ChangedTarError(f"other bytes than those of the picture at byte {picture.offset}")
    return data
