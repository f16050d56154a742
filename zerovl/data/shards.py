"""One sample of a shard by its byte range: no scan, no unpacking of the rest.

A shard is a WebDataset tar (USTAR); a sample is two members that follow one another, `<key>.jpg`
and `<key>.json`. The manifest's index gives shard, offset and size of each. Where the picture stays in a tar of the
user's, there is only the `.json`, which says where (`zerovl.data.placed_tars`).

By hand and not by webdataset, which reads a tar from front to back: any sample in any order is one `pread`, so a run
resumes at any step, and a core reads about three times as many as webdataset gives alone (figures in docs/tars.md).
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zerovl import s3
from zerovl.data.byte_ranges import ByteRanges
from zerovl.data.manifest import Manifest
from zerovl.data.placed_tars import PlacedPicture, PlacedTars, parse_placed
from zerovl.data.s3_shards import S3Files, S3Ranges
from zerovl.descriptors import open_files_limit
from zerovl.errors import ZeroVLError

BLOCK = 512  # bytes; tar headers are one, members are padded to whole ones


@dataclass(frozen=True)
class Sample:
    """One picture of a shard with its captions."""

    key: str
    image: bytes  # as stored, not decoded; b"" where it is `placed` and was not asked for
    captions: list[str]
    caption_ids: list[int]
    image_id: int
    source: str
    placed: PlacedPicture | None = None  # where the picture lies, if not in the shard


class DamagedSampleError(ValueError):
    """Says that bytes are not a sample; the message is the reason."""


class ShardReader:
    """Reads samples of the shards under `root`, a folder or s3://bucket/prefix; by `ranges` where they are given.

    Pictures that are not in the shards come by `tars`; without it local ones are found from the project that has
    `root` as its data/shards. It can be pickled, and used on both sides of a fork.
    """

    def __init__(self, root: Path | str, ranges: ByteRanges | None = None, tars: PlacedTars | None = None) -> None:
        self.root = str(root)
        self._ranges = ranges or _byte_ranges(self.root)
        self._tars = tars or PlacedTars(
            self.root, self._ranges, FileRanges(str(Path(self.root).parent.parent)), S3Files()
        )

    def read(self, path: str, offset: int, size: int) -> Sample:
        """Return the sample at bytes [offset, offset + size) of the shard `path` (relative to the root).

        Raises `ZeroVLError` where the shard, or the tar that has its picture, is missing, cut off or damaged.
        """
        sample = self.stored(path, offset, size)
        return replace(sample, image=self._tars.read(sample.placed)) if sample.placed else sample

    def stored(self, path: str, offset: int, size: int) -> Sample:
        """Return what the shard itself has of a sample: no picture where that is placed elsewhere; raises as `read`."""
        try:
            try:
                return self._read(path, offset, size)
            except DamagedSampleError:
                if not self._ranges.renew(path):
                    raise
                return self._read(path, offset, size)
        except FileNotFoundError:
            raise ZeroVLError(f"{self.root}/{path}: no such shard; {self._fix}") from None
        except DamagedSampleError as error:
            raise ZeroVLError(f"{self.root}/{path}: damaged at byte {offset} ({error}); {self._fix}") from None
        except OSError as error:
            raise ZeroVLError(
                f"{self.root}/{path}: cannot be read at byte {offset} ({error}); "
                "check the disk or the store and run again: a run resumes from its last checkpoint"
            ) from None

    def close(self) -> None:
        """Close what is open; a later read opens it again."""
        self._ranges.close()
        self._tars.close()

    def _read(self, path: str, offset: int, size: int) -> Sample:
        data = self._ranges.read(path, offset, size)
        if len(data) < size:
            raise DamagedSampleError(f"{size} bytes expected, {len(data)} found: the shard is cut off")
        return parse_sample(data)

    @property
    def _fix(self) -> str:
        if self.root.startswith(s3.PREFIX):
            return "copy data/shards of this manifest there again"
        return (
            "get the shard back with `dvc pull` (in a copy that machine.shards names: copy it there again), or make it "
            "again with `dvc repro -f prepare`"
        )


def read_row(manifest: Manifest, shards: ShardReader, source: str, split: str, row: int) -> Sample:
    """Return usable sample `row` of a source's split; opens the index again each time, so not for loops."""
    path, offset, size = locate(manifest, manifest.index(source, split)[row], source, split)
    return shards.read(path, offset, size)


def locate(manifest: Manifest, record: Any, source: str, split: str) -> tuple[str, int, int]:
    """Return shard path, offset and size of an index record."""
    info = manifest.splits[source, split]
    return info.shards[int(record["shard"])].path, int(record["offset"]), int(record["size"])


def parse_sample(data: bytes) -> Sample:
    """Return the sample that some members make, with their tar headers; raises `DamagedSampleError`."""
    image: bytes | None = None
    record: dict[str, Any] | None = None
    keys = set()
    for name, content in _members(data):
        key, _, extension = name.rpartition(".")
        keys.add(key)
        if extension == "json":
            record = _parse_json(content)
        else:
            image = content
    if record is None or (image is None and "picture" not in record) or len(keys) != 1:
        raise DamagedSampleError(f"a picture and a .json of one key expected, found {sorted(keys)}")
    try:
        placed = parse_placed(record["picture"]) if image is None else None
        captions = [str(caption) for caption in record["captions"]]
        caption_ids = [int(number) for number in record["caption_ids"]]
        image_id, source = int(record["image_id"]), str(record["source"])
        sample = Sample(keys.pop(), image or b"", captions, caption_ids, image_id, source, placed)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedSampleError(f"the .json lacks or spoils a field ({type(error).__name__}: {error})") from None
    if not captions:
        raise DamagedSampleError("no captions")
    return sample


def _parse_json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise DamagedSampleError(f"the .json cannot be parsed ({error})") from None
    if not isinstance(value, dict):
        raise DamagedSampleError(f"the .json holds {type(value).__name__}, not a mapping")
    return value


def _members(data: bytes) -> list[tuple[str, bytes]]:
    """Return names and contents of the members; `tarfile` takes ten times as long for the same."""
    members = []
    start = 0
    while start < len(data):
        header = data[start : start + BLOCK]
        name, size = _parse_header(header)
        content = data[start + BLOCK : start + BLOCK + size]
        if len(content) < size:
            raise DamagedSampleError(f"member {name} goes on past the sample's end")
        members.append((name, content))
        start += BLOCK + -(-size // BLOCK) * BLOCK
    return members


def _parse_header(header: bytes) -> tuple[str, int]:
    """Return name and size in a USTAR header; its checksum must hold, and it must be a plain file."""
    try:
        checksum = int(header[148:156].strip(b"\0 "), 8)
        # The sum of all bytes, those of the checksum itself taken as spaces.
        if sum(header[:148]) + 8 * 32 + sum(header[156:BLOCK]) != checksum or header[156:157] not in (b"0", b"\0"):
            raise DamagedSampleError("no tar header of a file here")
        size = int(header[124:136].strip(b"\0 "), 8)
        name = header[:100].rstrip(b"\0").decode()
        prefix = header[345:500].rstrip(b"\0").decode() if header[257:263] == b"ustar\0" else ""
    except DamagedSampleError:
        raise
    except ValueError:
        raise DamagedSampleError("no tar header here") from None
    return (f"{prefix}/{name}" if prefix else name), size


def _byte_ranges(root: str) -> ByteRanges:
    return S3Ranges(root) if root.startswith(s3.PREFIX) else FileRanges(root)


class FileRanges:
    """Gives parts of files by one `pread` each; files stay open up to a quarter of what the process may open.

    A reader of samples has up to three of these: for shards, for tars of the user's and for the cache of what is on S3.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        # `pread` has a position of its own, so a descriptor may be shared with a forked process.
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Return at most `size` bytes, fewer at the file's end."""
        return os.pread(self._descriptor(path), size, offset)

    def renew(self, _path: str) -> bool:
        """Return False: the files are the shards themselves."""
        return False

    def has_open(self, path: str) -> bool:
        """Return whether a file is open."""
        return path in self._open

    def close_removed(self) -> None:
        """Close the files that are no longer in any folder: only then the disk gets their bytes back."""
        for path in [path for path, descriptor in self._open.items() if not os.fstat(descriptor).st_nlink]:
            os.close(self._open.pop(path))

    def close(self) -> None:
        """Close all files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _descriptor(self, path: str) -> int:
        descriptor = self._open.get(path)
        if descriptor is None:
            descriptor = os.open(os.path.join(self._root, path), os.O_RDONLY | os.O_CLOEXEC)
            self._open[path] = descriptor
            if len(self._open) > max(1, open_files_limit() // 4):
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(path)
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {"_root": self._root, "_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()
