"""One work unit of `prepare`: some consecutive records to one shard and its manifest rows.

Runs in the processes of a pool: it imports numpy and Pillow alone, and what it makes depends on
nothing but its `Unit`.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from zerovl.data.filtering.left_out import LeftOut
from zerovl.data.filtering.sample_filters import KEEP_ALL, Filters
from zerovl.data.filtering.sieve import Candidate, Sieve
from zerovl.data.placed_tars import PlacedPicture
from zerovl.data.raw.picture_hash import difference_hash
from zerovl.data.raw.records import MISSING, Picture, Record, printable
from zerovl.data.shard_writing import ShardWriter, sample_members
from zerovl.images import BrokenImageError, decode

MAX_IMAGE_BYTES = 256 << 20
_SUBSAMPLING = {"full": "4:4:4", "half": "4:2:2", "quarter": "4:2:0"}  # Pillow's names


@dataclass(frozen=True, slots=True)
class JpegSettings:
    """How pictures are written that do not keep their bytes; as in `params.PrepareParams`."""

    quality: int = 95
    chroma: str = "full"  # a key of `_SUBSAMPLING`


BEST_JPEG = JpegSettings()


@dataclass(frozen=True, slots=True)
class Unit:
    """Some consecutive records of a split that become one shard."""

    shards: str  # folder of all shards
    source: str
    split: str
    number: int  # of the shard in its split
    records: tuple[Record, ...]
    max_side: int
    max_pixels: int
    filters: Filters = KEEP_ALL
    jpeg: JpegSettings = BEST_JPEG

    @property
    def name(self) -> str:
        """Path of the shard, relative to the folder of all shards."""
        return f"{self.source}/{self.split}/{self.number:06d}.tar"


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of a unit: its shard, and a row of the manifest for each record that no filter left out."""

    unit: Unit
    rows: list[dict[str, Any]]  # columns of the manifest
    samples: int  # 0: all records are broken or left out, and there is no shard
    bytes: int
    sha256: str
    faults: tuple[str, ...] = ()  # of stored pictures: what they say of themselves that was ignored
    left_out: tuple[LeftOut, ...] = ()
    tar: str | None = None  # sha256 of the tar that has the pictures, if the shard has not
    taken_over: bool = False  # from a `prepare` that was interrupted


PackAll = Callable[[Iterator[Unit]], Iterator[Packed]]  # results come in the order of the units


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture as it goes into the shard."""

    data: bytes | PlacedPicture
    size: int  # bytes
    width: int
    height: int
    phash: int
    recoded: str | None
    faults: tuple[str, ...]
    read: Callable[[], bytes]  # the picture itself


# Turns the picture of a record into what is stored of it, and notes the sha256 of its bytes in the row; raises
# `BrokenImageError`.
TakePicture = Callable[[Picture, dict[str, Any]], Stored]


def pack(unit: Unit) -> Packed:
    """Write the unit's shard (aside, then renamed) and describe every record.

    Raises `OSError` only where writing fails; a picture that cannot be read or decoded is a row
    with an error.
    """

    def take(picture: Picture, row: dict[str, Any]) -> Stored:
        original = read_picture(picture)
        row["sha256"] = hashlib.sha256(original).hexdigest()
        return store_picture(original, unit.max_side, unit.max_pixels, unit.jpeg)

    return pack_with(unit, take)


def pack_with(unit: Unit, take: TakePicture) -> Packed:
    """Do the same with pictures that `take` gives."""
    with ExitStack() as stack:
        shard = ShardWriter(Path(unit.shards, unit.name), stack)
        sieve, faults = Sieve(unit.filters), list[str]()
        packed = [_pack_record(record, unit, take, shard, sieve, faults) for record in unit.records]
        size, digest = shard.finish()
    rows = [row for row in packed if row is not None]
    samples = sum(row["error"] is None for row in rows)
    return Packed(unit, rows, samples, size, digest, tuple(faults), tuple(sieve.left_out))


def _pack_record(
    record: Record, unit: Unit, take: TakePicture, shard: ShardWriter, sieve: Sieve, faults: list[str]
) -> dict[str, Any] | None:
    """Return a row of the manifest; None where a filter left out the whole record."""
    row: dict[str, Any] = {
        "source": unit.source,
        "split": unit.split,
        "image_id": record.image_id,
        "captions": list(record.captions),
        "caption_ids": list(record.caption_ids),
        "error": record.error,
        "origin": printable(record.origin),
    }
    if record.picture is None:
        return row | {"error": record.error or "no picture"}
    try:
        stored = take(record.picture, row)
    except BrokenImageError as error:
        return row | {"error": str(error)}
    key, origin = f"{unit.source}-{record.image_id}", str(row["origin"])
    kept = sieve.kept_captions(
        Candidate(key, record.image_id, record.captions, origin, stored.read, stored.width, stored.height)
    )
    if kept is None:
        return None
    if len(kept) < len(record.captions):
        record = replace(
            record,
            captions=tuple(record.captions[place] for place in kept),
            caption_ids=tuple(record.caption_ids[place] for place in kept),
        )
        row |= {"captions": list(record.captions), "caption_ids": list(record.caption_ids)}
    faults += stored.faults
    offset, size = shard.add(
        sample_members(key, stored.data, unit.source, record.image_id, record.captions, record.caption_ids)
    )
    return row | {
        "key": key,
        "shard": unit.name,
        "offset": offset,
        "size": size,
        "width": stored.width,
        "height": stored.height,
        "bytes": stored.size,
        "phash": stored.phash,
        "recoded": stored.recoded,
    }


def read_picture(picture: Picture) -> bytes:
    """Return the bytes of a picture; raises `BrokenImageError` where they cannot be had."""
    try:
        return picture_bytes(picture)
    except FileNotFoundError:
        raise BrokenImageError(MISSING) from None
    except UnicodeEncodeError:
        raise BrokenImageError("file name is not valid Unicode") from None
    except OSError as error:
        raise BrokenImageError(f"cannot be read: {error.strerror}") from None


def picture_bytes(picture: Picture) -> bytes:
    """Return the bytes of a picture; raises `BrokenImageError` for what is none, `OSError` where reading fails."""
    status = os.stat(picture.path)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise BrokenImageError("not a file")
    size = status.st_size if picture.size is None else picture.size
    if size > MAX_IMAGE_BYTES:
        raise BrokenImageError(f"{size} bytes, more than {MAX_IMAGE_BYTES}")
    with open(picture.path, "rb") as file:
        file.seek(picture.offset)
        return file.read(size)


def store_picture(data: bytes, max_side: int, max_pixels: int, jpeg: JpegSettings = BEST_JPEG) -> Stored:
    """Return the bytes to keep: the original ones of an RGB or grey JPEG that is not too large and looks as its values.

    All else is decoded as people see it (`zerovl.images.decode`) and written as JPEG by `jpeg`: a stored
    picture is upright and in sRGB for every reader of the shard, also for one that obeys no tag.
    Raises `BrokenImageError`.
    """
    decoded = decode(data, max_pixels)
    image = decoded.image
    phash = difference_hash(image)
    reasons = list(decoded.changes)
    if decoded.kind not in ("JPEG", "MPO") or decoded.mode not in ("RGB", "L"):  # MPO: a JPEG, further pictures behind
        reasons.insert(0, f"{decoded.kind} {decoded.mode}")
    longest = max(image.size)
    if 0 < max_side < longest:
        width, height = (max(1, round(side * max_side / longest)) for side in image.size)
        reasons.append(f"{image.width}x{image.height} to {width}x{height}")
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    if reasons:
        buffer = io.BytesIO()
        try:
            image.save(buffer, "JPEG", quality=jpeg.quality, subsampling=_SUBSAMPLING[jpeg.chroma])
        except (OSError, ValueError) as error:  # sides above JPEG's 65535
            raise BrokenImageError(f"{image.width}x{image.height} cannot be stored as JPEG: {error}"[:200]) from None
        data = buffer.getvalue()
    faults, recoded = tuple(decoded.faults), ", ".join(reasons) or None
    return Stored(data, len(data), image.width, image.height, phash, recoded, faults, lambda: data)
