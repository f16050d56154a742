"""The pairs of a release's sample, read from its tar; no model is loaded for it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from zerovl.errors import ZeroVLError
from zerovl.images import decode_rgb
from zerovl.picture_reader import ANY_PIXELS


@dataclass(frozen=True)
class StoredPair:
    """A validation pair as a release carries it."""

    source: str
    image_id: int
    image: bytes  # as stored, not decoded
    captions: tuple[str, ...]


def read_stored(path: Path) -> list[StoredPair]:
    """Read the pairs of a sample's tar, pictures not decoded; raises `ZeroVLError` where it cannot be read."""
    try:
        with tarfile.open(path) as tar:
            return [
                StoredPair(str(record["source"]), int(record["image_id"]), image, tuple(map(str, record["captions"])))
                for record, image in _records(tar)
            ]
    except (tarfile.TarError, OSError, ValueError, LookupError, TypeError) as error:
        raise _unreadable(path, error) from None


def read_pairs(path: Path) -> tuple[list[str], list[Image.Image], list[str]]:
    """Return keys, pictures and first captions of a sample, n each; raises `ZeroVLError` where it is damaged."""
    keys, pictures, captions = [], [], []
    try:
        with tarfile.open(path) as tar:
            for record, image in _records(tar):
                keys.append(str(record["key"]))
                captions.append(str(record["captions"][0]))
                pictures.append(decode_rgb(image, ANY_PIXELS))  # raises a ValueError
    except (tarfile.TarError, OSError, ValueError, LookupError, TypeError) as error:
        raise _unreadable(path, error) from None
    return keys, pictures, captions


def _records(tar: tarfile.TarFile) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The JSON of each pair with the bytes of its picture, in order."""
    members = {member.name: member for member in tar if member.isfile()}
    for name in sorted(name for name in members if name.endswith(".json")):
        picture = member_bytes(tar, members[f"{name.removesuffix('.json')}.jpg"])
        yield json.loads(member_bytes(tar, members[name])), picture


def _unreadable(path: Path, error: Exception) -> ZeroVLError:
    return ZeroVLError(f"{path}: no readable sample ({error!r}); register the model again")


def member_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the content of a file in a tar; empty for what is not one."""
    file = tar.extractfile(member)
    return file.read() if file else b""
