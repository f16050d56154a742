"""Read the pictures of a set, each once, and give them to one or more encoders.

Shapes: `N` pictures of the set, `n` of them that can be read, `H` and `W` pixels, `w` width of what an encoder gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from zerovl import cores
from zerovl.data.raw.records import Picture
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.pool import Ints
from zerovl.evaluation.sharing import facts_of_all, own, rows_of_all
from zerovl.files import sha256_json
from zerovl.images import BrokenImageError, decode_rgb

Transform = Callable[[Image.Image], torch.Tensor]
PixelEncoder = Callable[[torch.Tensor], torch.Tensor]
MOST_THREADS = 8  # that decode; Pillow lets go of the interpreter's lock meanwhile
_UNREADABLE = "unreadable"  # in place of a digest
_KEY_DIGITS = 16  # of a digest: 64 bits tell the pictures of a set apart


@dataclass(frozen=True)
class EncodedPictures:
    """What encoders made of the pictures that can be read."""

    rows: Ints  # (n,) places among all N pictures
    outputs: tuple[torch.Tensor, ...]  # (n, w) an encoder
    broken: tuple[tuple[int, str], ...]  # (place among all, why)
    keys: tuple[str, ...]  # (n,) the beginning of the digest of each one's bytes: equal bytes, equal key
    digest: str  # of the bytes of all N pictures, in their order


@dataclass(frozen=True)
class ReadBatch:
    """Some pictures of a set that follow each other, decoded."""

    facts: list[list[Any]]  # of each picture: its digest, and why it is broken or None
    pixels: torch.Tensor | None  # (m, 3, H, W) uint8 of those that can be read; None where there are none


def read_batches(
    pictures: Sequence[Picture], transform: Transform, batch_size: int, ranks: Ranks = ALONE
) -> Iterator[ReadBatch]:
    """Decode pictures by `zerovl.images`, `batch_size` at once; of the batches those that are this rank's."""
    load = partial(_load, transform=transform)
    threads = min(MOST_THREADS, cores.core_count())
    starts = range(0, len(pictures), batch_size)[own(ranks)]
    with ThreadPoolExecutor(threads) as pool:
        for start in tqdm(starts, desc="pictures", unit="batch", leave=False, disable=not ranks.is_first):
            loaded = list(pool.map(load, pictures[start : start + batch_size]))
            facts = [[digest, pixels if isinstance(pixels, str) else None] for digest, pixels in loaded]
            readable = [pixels for _, pixels in loaded if not isinstance(pixels, str)]
            yield ReadBatch(facts, torch.stack(readable) if readable else None)


def encode_pictures(
    pictures: Sequence[Picture],
    transform: Transform,
    encoders: Sequence[PixelEncoder],
    batch_size: int,
    ranks: Ranks = ALONE,
) -> EncodedPictures:
    """Decode pictures, and encode those that can be read.

    Args:
        pictures: N of them.
        transform: makes an RGB picture uint8 pixels (3, H, W).
        encoders: each makes pixels (m, 3, H, W) rows (m, w).
        batch_size: pictures decoded and encoded at once.
        ranks: who share the batches; all give the same.
    """
    found: list[list[Any]] = []
    parts: list[list[torch.Tensor]] = [[] for _ in encoders]
    for batch in read_batches(pictures, transform, batch_size, ranks):
        found.append(batch.facts)
        if batch.pixels is not None:
            for encode, its_parts in zip(encoders, parts, strict=True):
                its_parts.append(encode(batch.pixels))
    return _brought_together(found, parts, ranks)


def _brought_together(found: list[list[Any]], parts: list[list[torch.Tensor]], ranks: Ranks) -> EncodedPictures:
    """Give the batches of all ranks in their order; a batch without a readable picture has no part."""
    batches = facts_of_all(found, ranks)
    of_pictures = [fact for batch in batches for fact in batch]
    rows = [row for row, (_, broken) in enumerate(of_pictures) if broken is None]
    broken = tuple((row, why) for row, (_, why) in enumerate(of_pictures) if why is not None)
    sizes = [sum(why is None for _, why in batch) for batch in batches]
    outputs = tuple(rows_of_all(its_parts, sizes, ranks) for its_parts in parts)
    keys = tuple(digest[:_KEY_DIGITS] for digest, why in of_pictures if why is None)
    digest = sha256_json([digest for digest, _ in of_pictures])
    return EncodedPictures(np.array(rows, np.int64), outputs, broken, keys, digest)


def read_bytes(picture: Picture) -> bytes:
    """Return the bytes of a picture as they are stored; raises `OSError`."""
    with open(picture.path, "rb") as file:
        file.seek(picture.offset)
        return file.read() if picture.size is None else file.read(picture.size)


def _load(picture: Picture, transform: Transform) -> tuple[str, torch.Tensor | str]:
    """Return the digest of a picture's bytes, and its pixels or why there are none."""
    try:
        data = read_bytes(picture)
    except OSError as error:
        return _UNREADABLE, error.strerror or str(error)
    digest = hashlib.sha256(data).hexdigest()
    try:
        return digest, transform(decode_rgb(data))
    except BrokenImageError as error:
        return digest, str(error)
