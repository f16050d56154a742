"""Read the pictures of a set, each once, and give them to one or more encoders.

Shapes: `N` pictures of the set, `n` of them that can be read, `H` and `W` pixels, `w` width of what an encoder gives.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from tqdm import tqdm

from zerovl.data.raw.records import Picture
from zerovl.evaluation.pool import Ints
from zerovl.files import sha256_json
from zerovl.images import BrokenImageError, decode_rgb

Transform = Callable[[Image.Image], torch.Tensor]
PixelEncoder = Callable[[torch.Tensor], torch.Tensor]
_MOST_THREADS = 8  # that decode; Pillow lets go of the interpreter's lock meanwhile
_UNREADABLE = "unreadable"  # in place of a digest


@dataclass(frozen=True)
class EncodedPictures:
    """What encoders made of the pictures that can be read."""

    rows: Ints  # (n,) places among all N pictures
    outputs: tuple[torch.Tensor, ...]  # (n, w) an encoder
    broken: tuple[tuple[int, str], ...]  # (place among all, why)
    digest: str  # of the bytes of all N pictures, in their order


def encode_pictures(
    pictures: Sequence[Picture], transform: Transform, encoders: Sequence[PixelEncoder], batch_size: int
) -> EncodedPictures:
    """Decode pictures by `zerovl.images`, and encode those that can be read.

    Args:
        pictures: N of them.
        transform: makes an RGB picture uint8 pixels (3, H, W).
        encoders: each makes pixels (m, 3, H, W) rows (m, w).
        batch_size: pictures decoded and encoded at once.
    """
    rows: list[int] = []
    broken: list[tuple[int, str]] = []
    digests: list[str] = []
    parts: list[list[torch.Tensor]] = [[] for _ in encoders]
    load = partial(_load, transform=transform)
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(pictures), desc="pictures", unit="", leave=False) as bar:
        for start in range(0, len(pictures), batch_size):
            pixels = []
            for row, (digest, loaded) in enumerate(pool.map(load, pictures[start : start + batch_size]), start):
                digests.append(digest)
                if isinstance(loaded, str):
                    broken.append((row, loaded))
                else:
                    rows.append(row)
                    pixels.append(loaded)
                bar.update()
            if pixels:
                for encode, its_parts in zip(encoders, parts, strict=True):
                    its_parts.append(encode(torch.stack(pixels)))
    outputs = tuple(torch.cat(its_parts) if its_parts else torch.empty(0, 0) for its_parts in parts)
    return EncodedPictures(torch.tensor(rows, dtype=torch.int64).numpy(), outputs, tuple(broken), sha256_json(digests))


def _load(picture: Picture, transform: Transform) -> tuple[str, torch.Tensor | str]:
    """Return the digest of a picture's bytes, and its pixels or why there are none."""
    try:
        with open(picture.path, "rb") as file:
            file.seek(picture.offset)
            data = file.read() if picture.size is None else file.read(picture.size)
    except OSError as error:
        return _UNREADABLE, error.strerror or str(error)
    digest = hashlib.sha256(data).hexdigest()
    try:
        return digest, transform(decode_rgb(data))
    except BrokenImageError as error:
        return digest, str(error)
