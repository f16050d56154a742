"""Pictures of equal bytes as one with several captions: img2dataset's tars of a table with a row a caption.

img2dataset fetches each row of its table by itself and writes a sample in the order in which pictures arrive, so the
captions of one picture lie anywhere in a split, in samples of their own. As such each would be a wrong answer to the
others. The whole split is read before the first record is given: memory grows with its captions, and files from S3 stay
until then. Sets for retrieval have a few thousand pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.pack import read_picture
from zerovl.data.raw.records import Picture, Record
from zerovl.images import BrokenImageError

Grouping = Callable[[Iterator[Record], FetchedFiles], Iterator[Record]]


def separate(records: Iterator[Record], fetched: FetchedFiles) -> Iterator[Record]:
    """Give the records as they are."""
    return records


def together(records: Iterator[Record], fetched: FetchedFiles) -> Iterator[Record]:
    """Give the first record of each picture, with the captions of all in their order; broken inputs stay in place."""
    kept: list[Record] = []
    places: dict[bytes, int] = {}  # of a picture among `kept`, by the digest of its bytes
    for record in records:
        digest = _digest(record.picture) if record.picture else None
        place = len(kept) if digest is None else places.setdefault(digest, len(kept))
        if place < len(kept):
            first = kept[place]
            kept[place] = replace(
                first,
                captions=first.captions + record.captions,
                caption_ids=first.caption_ids + record.caption_ids,
            )
            continue
        kept.append(record)
        if record.picture:
            fetched.hold(record.picture.path)  # the reader's own hold ends with its file's last record
    for record in kept:
        yield record
        if record.picture:
            fetched.release(record.picture.path)


GROUPINGS: dict[str, Grouping] = {"separate": separate, "together": together}


def _digest(picture: Picture) -> bytes | None:
    """Digest of a picture's bytes; None where they cannot be read, which whoever packs them reports."""
    try:
        return hashlib.sha256(read_picture(picture)).digest()
    except BrokenImageError:
        return None
