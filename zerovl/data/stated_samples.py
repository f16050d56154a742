"""How many samples a tar should have, as a file beside it says, on this machine or on S3."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from zerovl import s3

_ENDING = len(".tar")
_MOST_STATS = 16 << 20  # bytes of img2dataset's file that are read: it has an entry for each kind of error
_MOST_LINE = 1 << 10  # bytes of DALI's that are read: its first line says it
_INDEX_VERSION = "v1."  # an index of DALI begins with "v1.2 1000"


@dataclass(frozen=True, slots=True)
class Stated:
    """How many samples a tar should have, and the name of the file beside it that says so."""

    samples: int
    file: str


def files_beside(tar: str) -> tuple[str, str]:
    """Return where img2dataset's file and DALI's index of a tar lie."""
    return f"{tar[:-_ENDING]}_stats.json", f"{tar[:-_ENDING]}.idx"


def samples_stated_beside(tar: str) -> int | None:
    """Return how many samples a tar has by a file beside it, as `stated_beside` does; None where none says so."""
    stated = stated_beside(tar)
    return None if stated is None else stated.samples


def stated_beside(tar: str) -> Stated | None:
    """Return how many samples a tar has by a file beside it, and which; None where there is none that says so.

    Asked are img2dataset's `00000_stats.json` beside `00000.tar`, then DALI's index `00000.idx`. `tar` is a path or
    `s3://bucket/key`. Raises `ZeroVLError` where S3 does not answer, or there is no such bucket.

    Sources: `write_stats` in img2dataset/logger.py of github.com/rom1504/img2dataset, where `successes` are written;
    `IndexCreator` in tools/wds2idx.py of github.com/NVIDIA/DALI.
    """
    if tar[-_ENDING:].lower() != ".tar":
        return None
    stats, index = files_beside(tar)
    if (count := _successes(_head(stats, _MOST_STATS))) is not None:
        return Stated(count, _name(stats))
    count = _indexed(_head(index, _MOST_LINE))
    return None if count is None else Stated(count, _name(index))


def _name(place: str) -> str:
    return place.rpartition("/")[2]


def _successes(content: bytes) -> int | None:
    try:
        stats: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    count = stats.get("successes") if isinstance(stats, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def _indexed(content: bytes) -> int | None:
    version, _, count = content.partition(b"\n")[0].decode("ascii", "replace").partition(" ")
    is_count = version.startswith(_INDEX_VERSION) and count.isascii() and count.isdigit() and len(count) < 20
    return int(count) if is_count else None


def _head(place: str, size: int) -> bytes:
    """Return the first bytes of a file; none where there is no such file."""
    if not place.startswith(s3.PREFIX):
        try:
            with open(place, "rb") as file:
                return file.read(size)
        except OSError:
            return b""
    its = s3.parse(place)
    try:
        return b"".join(_bucket(its.bucket).blocks(its.path, f"{place}: cannot be read", 0, size))
    except s3.AnswerError as error:
        # So who may read and not list is told of an object that is not there (GetObject in S3's API reference).
        if error.is_missing_key or error.is_past_the_end or error.code == "AccessDenied":
            return b""
        raise


@cache
def _bucket(name: str) -> s3.Bucket:
    return s3.Bucket(name)
