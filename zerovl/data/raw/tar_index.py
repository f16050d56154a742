"""What is in a tar that stays where it lies: its samples, and of each picture all that a manifest says.

    FOLDER/<name>.json              which bytes were read, by what; written last
    FOLDER/<name>-<sha256>.parquet  one row a sample, in the order of the tar

An index follows from the tar's bytes, from `prepare.max_pixels` and from the program that makes it, and from no other
tar: ids and filters come later. So it is kept for the next `prepare`, and a tar that is as it was is not read again.
It is known by size, time and inode, on S3 by size and ETag; where these differ, by its sha256, which spares decoding.

Checkouts share the folder without a lock: a program has entries of its own, and rows are named after the bytes that
they are of, so that whoever writes meanwhile takes the rows away, at worst, and never puts others in their place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from zerovl import code_closure
from zerovl.data.raw import s3_source
from zerovl.data.raw.layout import is_remote
from zerovl.data.raw.pack import picture_bytes
from zerovl.data.raw.picture_hash import difference_hash
from zerovl.data.raw.records import Picture
from zerovl.data.raw.tar_samples import TarSample, UnfitTarError, whole_samples
from zerovl.data.stated_samples import samples_stated_beside
from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write, sha256_file, write_json
from zerovl.images import BrokenImageError, decode

_PROGRAM = (
    *("zerovl.deep_colours", "zerovl.images", "zerovl.picture_looks", "zerovl.tiff_planes"),
    *(
        f"zerovl.data.raw.{name}"
        for name in ("picture_hash", "records", "tar_index", "tar_keys", "tar_members", "tar_samples")
    ),
)
_SCHEMA = pa.schema(
    [
        # Names in tars need not be UTF-8.
        *((name, pa.binary()) for name in ("key", "origin", "problem", "text", "description")),
        ("offset", pa.int64()),  # these of the picture, null where there is none
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("crc32", pa.uint32()),
        ("width", pa.int32()),  # as it is seen
        ("height", pa.int32()),
        ("phash", pa.uint64()),
        ("faults", pa.list_(pa.string())),
        ("error", pa.string()),  # why it cannot be used
    ]
)


@dataclass(frozen=True, slots=True)
class TarTask:
    """A tar to index; picklable."""

    name: str  # in messages and origins
    path: str  # where it is opened, or its address on S3
    place: str  # as the catalogue of the shards has it
    state: str  # what changes when the tar does
    folder: str  # of the indexes
    scratch: str  # folder for what is fetched
    max_pixels: int
    is_stated: bool = True  # whether a file beside it may state how many samples it has

    @property
    def entry(self) -> Path:
        """Path of the index, without its endings."""
        known_by = f"{self.place}\0{self.name}\0{self.made_by}"
        return Path(self.folder, hashlib.sha256(known_by.encode(errors="replace")).hexdigest()[:32])

    @property
    def head(self) -> Path:
        """Path of the file that says which bytes were read."""
        return self.entry.with_suffix(".json")

    def rows(self, sha256: str) -> Path:
        """Return the path of the rows of a tar of these bytes."""
        return Path(f"{self.entry}-{sha256[:16]}.parquet")

    @property
    def made_by(self) -> str:
        """What an index follows from beside the tar."""
        program = code_closure.digest_of(_PROGRAM)
        return f"{program} Pillow {PIL.__version__} max_pixels {self.max_pixels}"


IndexAll = Callable[[list[TarTask]], Iterator[object]]  # indexes tars, and gives something for each that it has done


@dataclass(frozen=True, slots=True)
class IndexHead:
    """Which tar an index is of."""

    made_by: str  # tells people which entries are of a program that has gone
    state: str
    sha256: str  # empty where it could not be read
    bytes: int
    unfit: str | None  # why the tar cannot stay where it lies
    samples: int | None  # that it has; of one that cannot stay those that it had before, None: not known
    stated: int | None  # samples by a file beside it when it was read


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What is known of a picture without reading it."""

    sha256: str | None = None
    crc32: int = 0
    width: int = 0
    height: int = 0
    phash: int = 0
    faults: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TarIndex:
    """Samples of a tar in its order, and the facts of their pictures by offset."""

    head: IndexHead
    samples: list[TarSample]
    facts: dict[int, PictureFacts]


def local_state(path: str) -> str:
    """Return size, time and inode of a file; raises `OSError`."""
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def kept_head(task: TarTask) -> IndexHead | None:
    """Return the head of an index that this program made, be it of the tar as it is now or as it was."""
    try:
        head = IndexHead(**json.loads(task.head.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return head if task.rows(head.sha256).is_file() else None


def is_indexed(task: TarTask) -> bool:
    """Return whether there is an index of the tar as it is now; a tar that could not be read is looked at again."""
    head = kept_head(task)
    return head is not None and bool(head.sha256) and head.state == task.state


def index_tar(task: TarTask) -> None:
    """Write the index of a tar; raises `ZeroVLError` where it cannot be fetched, or changes meanwhile."""
    before = kept_head(task)
    with _at_hand(task) as path:
        head, rows = _looked_at(task, path, before)
        if rows is not None and not head.unfit and not is_remote(task.path) and local_state(path) != task.state:
            raise ZeroVLError(f"{task.path}: changes while it is read; run `zerovl prepare` again when it is whole")
    if rows is not None:
        with atomic_write(task.rows(head.sha256)) as file:
            pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), file, compression="zstd")
    write_json(task.head, asdict(head))
    if before is not None and before.sha256 != head.sha256:
        task.rows(before.sha256).unlink(missing_ok=True)


def index_aside(task: TarTask, folder: str) -> None:
    """Do as `index_tar` does, but write into a folder of this attempt alone; `take_index` brings it to its place."""
    aside, before = replace(task, folder=folder), kept_head(task)
    if before is not None:  # a tar whose bytes are known is not read again
        Path(folder).mkdir(parents=True, exist_ok=True)
        for old, new in ((task.rows(before.sha256), aside.rows(before.sha256)), (task.head, aside.head)):
            shutil.copyfile(old, new)
    index_tar(aside)


def take_index(task: TarTask, folder: str) -> None:
    """Move what `index_aside` wrote to where the index of a tar belongs."""
    aside, before = replace(task, folder=folder), kept_head(task)
    head = kept_head(aside)
    assert head is not None
    os.replace(aside.rows(head.sha256), task.rows(head.sha256))
    os.replace(aside.head, task.head)
    if before is not None and before.sha256 != head.sha256:
        task.rows(before.sha256).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _looked_at(task: TarTask, path: str, before: IndexHead | None) -> tuple[IndexHead, list[dict[str, Any]] | None]:
    """Return what is in a tar; no rows where its bytes are those that were read before."""
    try:
        digest, size = sha256_file(path), os.path.getsize(path)
        stated = samples_stated_beside(task.path) if task.is_stated else None
        if before is not None and before.sha256 == digest:
            return replace(before, state=task.state, stated=stated), None
        unfit, rows = None, [_row(sample, task.max_pixels) for sample in whole_samples(path, task.name)]
    except UnfitTarError as error:
        unfit, rows = str(error), []
    except OSError as error:
        digest, size, stated, unfit, rows = "", 0, None, f"cannot be read: {error.strerror or error}", []
    known = before.samples if before is not None else None
    samples = known if unfit else sum(bool(row["key"]) for row in rows)
    return IndexHead(task.made_by, task.state, digest, size, unfit, samples, stated), rows


def read_index(task: TarTask) -> TarIndex:
    """Return the index of a tar that is indexed; raises `ZeroVLError` where another prepare has replaced it."""
    head = kept_head(task)
    try:
        table = pq.read_table(task.rows(head.sha256)) if head and _is_of(head, task) else None
    except FileNotFoundError:
        table = None
    if head is None or table is None:
        raise ZeroVLError(
            f"{task.entry}: the index of {task.name} has gone meanwhile, or is of other bytes (a prepare of another "
            "checkout shares the folder, or the tar was replaced); run `zerovl prepare` again"
        )
    samples, facts = [], {}
    for row in table.to_pylist():
        picture = None if row["offset"] is None else Picture(task.path, row["offset"], row["size"])
        key, origin, problem = (_text(row[name]) for name in ("key", "origin", "problem"))
        samples.append(TarSample(key or "", origin or "", picture, row["text"], row["description"], problem))
        if picture is not None:
            values = {name: row[name] for name in PictureFacts.__slots__}
            facts[picture.offset] = PictureFacts(**values | {"faults": tuple(row["faults"])})
    return TarIndex(head, samples, facts)


def _is_of(head: IndexHead, task: TarTask) -> bool:
    """Return whether the bytes that were read are those of the tar: a copy in another checkout has another time."""
    if head.state == task.state:
        return True
    return not is_remote(task.path) and bool(head.sha256) and sha256_file(task.path) == head.sha256


@contextmanager
def _at_hand(task: TarTask) -> Iterator[str]:
    """Give a path of the tar; one on S3 is fetched while the block runs."""
    if not is_remote(task.path):
        yield task.path
        return
    path = Path(task.scratch, f"{task.entry.name}.tar")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        s3_source.fetch(task.path, path)
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _row(sample: TarSample, max_pixels: int) -> dict[str, Any]:
    values: dict[str, Any] = {name: _bytes(getattr(sample, name)) for name in ("key", "origin", "problem")}
    values |= {"text": sample.text, "description": sample.description}
    if sample.picture is None:
        return values
    facts = _facts(sample.picture, max_pixels)
    return values | {"offset": sample.picture.offset, "size": sample.picture.size} | asdict(facts)


def _facts(picture: Picture, max_pixels: int) -> PictureFacts:
    try:
        data = picture_bytes(picture)  # an error of the disk is none of the picture's, and is not kept
    except BrokenImageError as error:
        return PictureFacts(error=str(error))
    digest, checksum = hashlib.sha256(data).hexdigest(), zlib.crc32(data)
    try:
        decoded = decode(data, max_pixels)
    except BrokenImageError as error:
        return PictureFacts(digest, checksum, error=str(error))
    width, height = decoded.image.size
    return PictureFacts(digest, checksum, width, height, difference_hash(decoded.image), tuple(decoded.faults))


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "surrogateescape")
