"""Pictures of equal bytes as one with several captions: img2dataset's tars of a table with a row a caption.

img2dataset fetches each row of its table by itself and writes a sample in the order in which pictures arrive, so the
captions of one picture lie anywhere in a split, in samples of their own. As such each would be a wrong answer to the
others. The whole split is read before the first record is given: memory grows with its captions, and files from S3 stay
until then. Sets for retrieval have a few thousand pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.pack import read_picture
from zerovl.data.raw.records import Picture, Reading, Record
from zerovl.images import BrokenImageError
from zerovl.text_format import plural

Grouping = Callable[[Iterator[Record], FetchedFiles, list[str]], Iterator[Record]]  # notes are added to the list

_MOST = 0.5  # of a split's rows; with more sharing their picture it is a table with a row a caption
_MOST_ROWS = 50  # of one picture: no set has more captions of one, but a placeholder stands in more rows


@dataclass
class _Rows:
    """All rows of a split, with the digest of each picture's bytes; None where there is none that can be read."""

    records: list[Record]
    digests: list[bytes | None]


def separate(records: Iterator[Record], fetched: FetchedFiles, notes: list[str]) -> Iterator[Record]:
    """Give the records as they are."""
    return records


def together(records: Iterator[Record], fetched: FetchedFiles, notes: list[str]) -> Iterator[Record]:
    """Give the first record of each picture, with the captions of all in their order; broken inputs stay in place."""
    return _given(_one_a_picture(_read(records, fetched), fetched, notes), fetched)


def recognised(records: Iterator[Record], fetched: FetchedFiles, notes: list[str]) -> Iterator[Record]:
    """Give what `together` gives of a table with a row a caption, and other records as they are.

    It is one where most rows share their picture with a row of another caption, and no picture has more than 50 rows.
    """
    rows = _read(records, fetched)
    return _given(_one_a_picture(rows, fetched, notes) if _is_row_a_caption(rows) else rows.records, fetched)


def grouping(setting: str, split: str, reading: Reading) -> Grouping:
    """Return how `equal_pictures` of a source treats one of its splits.

    Pictures with ids of the user's are what these say, and pairs of training need no other captions beside them.
    """
    if setting == "auto":
        return recognised if split == "valid" and reading.without_ids else separate
    return {"separate": separate, "together": together}[setting]


def _read(records: Iterator[Record], fetched: FetchedFiles) -> _Rows:
    rows = _Rows([], [])
    for record in records:
        rows.records.append(record)
        rows.digests.append(_digest(record.picture) if record.picture else None)
        if record.picture:
            fetched.hold(record.picture.path)  # the reader's own hold ends with its file's last record
    return rows


def _is_row_a_caption(rows: _Rows) -> bool:
    captions: dict[bytes, list[tuple[str, ...]]] = {}
    for record, digest in zip(rows.records, rows.digests, strict=True):
        if digest is not None:
            captions.setdefault(digest, []).append(record.captions)
    sharing = sum(len(its) for its in captions.values() if len(set(its)) > 1)
    return sharing > _MOST * sum(map(len, captions.values())) and max(map(len, captions.values())) <= _MOST_ROWS


def _one_a_picture(rows: _Rows, fetched: FetchedFiles, notes: list[str]) -> list[Record]:
    kept: list[Record] = []
    places: dict[bytes, int] = {}  # of a picture among `kept`
    for record, digest in zip(rows.records, rows.digests, strict=True):
        place = len(kept) if digest is None else places.setdefault(digest, len(kept))
        if place == len(kept):
            kept.append(record)
            continue
        first = kept[place]
        kept[place] = replace(
            first, captions=first.captions + record.captions, caption_ids=first.caption_ids + record.caption_ids
        )
        assert record.picture  # it has a digest
        fetched.release(record.picture.path)
    count = sum(digest is not None for digest in rows.digests)
    notes.append(
        f"{plural(count, 'row')} with {plural(len(places), 'picture')}: those of equal bytes are one picture with the "
        "captions of all (equal_pictures: separate keeps them apart)"
    )
    return kept


def _given(records: list[Record], fetched: FetchedFiles) -> Iterator[Record]:
    for record in records:
        yield record
        if record.picture:
            fetched.release(record.picture.path)


def _digest(picture: Picture) -> bytes | None:
    """Digest of a picture's bytes; None where they cannot be read, which whoever packs them reports."""
    try:
        return hashlib.sha256(read_picture(picture)).digest()
    except BrokenImageError:
        return None
