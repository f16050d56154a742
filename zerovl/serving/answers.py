"""Answer what the page asks for: pictures found by words or by a picture, and the pictures themselves."""

from __future__ import annotations

import io
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zerovl.data.raw.records import Picture
from zerovl.images import BrokenImageError, decode_rgb
from zerovl.indexing.index import Index, IndexedPicture, read_bytes
from zerovl.indexing.search import Nearest, Query, find, nearest

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder

TOP = 48  # pictures that a search gives
_SOME = 15  # that are shown before the first
LONGEST_WORDS = 2000  # characters
THUMBNAIL, LARGE = 360, 1600  # pixels of the longer side
_AT_ONCE = 2  # pictures decoded, each of up to 50 megapixels
_KEPT_THUMBNAILS = 512  # of about 20 kB


class BadQueryError(ValueError):
    """Says why there is no answer; the message is a sentence for the page."""


class Answers:
    """Answers from one index with one model; may be asked from several threads."""

    def __init__(self, index: Index, encoder: Encoder, search: Nearest = nearest) -> None:
        """Answer from an index with the model that made it; `search` finds what is near."""
        self.index = index
        self._search = search
        self._encoder = encoder
        self._one_query = threading.Lock()  # that the model computes on
        self._decoding = threading.Semaphore(_AT_ONCE)
        self.thumbnail = lru_cache(_KEPT_THUMBNAILS)(self._thumbnail)

    def by_words(self, words: str) -> dict[str, Any]:
        """Return what is nearest to some words; raises `BadQueryError` where there are none, or too many."""
        if not words.strip():
            raise BadQueryError("Type what you are looking for.")
        if len(words) > LONGEST_WORDS:
            raise BadQueryError(
                f"{len(words):,} characters are more than the {LONGEST_WORDS:,} that a search may have."
            )
        start = time.perf_counter()
        with self._one_query:
            query = self._encoder.encode_text([words])[0].numpy()
        return self._answer(query, start)

    def by_picture(self, data: bytes) -> dict[str, Any]:
        """Return what is nearest to a picture's bytes, which are not kept; raises `BadQueryError`."""
        start = time.perf_counter()
        try:
            with self._decoding:
                pixels = self._encoder.transform(decode_rgb(data))
        except BrokenImageError as error:
            raise BadQueryError(f"This cannot be used as a picture: {error}.") from None
        with self._one_query:
            query = self._encoder.encode_pixels(pixels[None])[0].numpy()
        return self._answer(query, start)

    def like(self, row: int) -> dict[str, Any]:
        """Return what is nearest to a picture of the index, without itself; raises `BadQueryError`."""
        self._check(row)
        start = time.perf_counter()
        return self._answer(self.index.embeddings[row].astype(np.float32), start, row)

    def some(self) -> dict[str, Any]:
        """Return pictures from the whole index, for a look at what is in it."""
        rows = np.unique(np.linspace(0, len(self.index) - 1, _SOME).round().astype(np.int64))
        return {"results": [_result(one, None) for one in self.index.pictures(rows.tolist()) if one.is_there]}

    def large(self, row: int) -> bytes:
        """Return a picture as a JPEG of at most `LARGE` pixels a side; raises `BadQueryError`."""
        return self._jpeg(row, LARGE)

    def _thumbnail(self, row: int) -> bytes:
        return self._jpeg(row, THUMBNAIL)

    def _jpeg(self, row: int, side: int) -> bytes:
        self._check(row)
        (found,) = self.index.pictures([row])
        if found.picture is None:
            raise BadQueryError("The index holds the embedding of this picture and not where it lies.")
        try:
            with self._decoding:
                return _shrunk(found.picture, side)
        except BrokenImageError as error:
            raise BadQueryError(f"This picture cannot be shown: {error}.") from None
        except OSError:
            raise BadQueryError("This picture is gone since it was indexed; run `zerovl index` again.") from None

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.index):
            raise BadQueryError(f"There is no picture {row}; the index has {len(self.index):,}.")

    def _answer(self, query: Query, start: float, skip: int | None = None) -> dict[str, Any]:
        found = find(self.index, query, TOP, skip, self._search)
        results = [_result(one, score) for one, score in zip(found.pictures, found.scores, strict=True)]
        return {"results": results, "gone": len(found.gone), "seconds": round(time.perf_counter() - start, 3)}


def _result(one: IndexedPicture, score: float | None) -> dict[str, Any]:
    rounded = None if score is None else round(score, 4)
    return {"id": one.row, "key": one.key, "score": rounded, "has_picture": one.picture is not None}


def _shrunk(picture: Picture, side: int) -> bytes:
    image = decode_rgb(read_bytes(picture))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return out.getvalue()
