"""How many drawn copies `prepare.filters.semantic_duplicates` finds by bound, and how many pictures it takes wrongly.

    python -m benchmarks.near_copies MODEL [--originals 300]

Of the demo's scenes some are copied: recoded, cropped, brightened. Everything else is a picture of its own, among them
scenes that differ in one attribute. Recall is the share of the copies that are left out, precision the share of what is
left out whose twin is a picture of the same original. Beside it the perceptual hash of `duplicates: near`. MODEL is a
bundle's folder.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from zerovl.data.demo.pictures import STYLES
from zerovl.data.demo.scenes import all_scenes
from zerovl.data.filtering.embedding_clusters import clusters
from zerovl.data.filtering.embedding_copies import find_copies
from zerovl.data.filtering.near_pairs import near_pairs
from zerovl.data.raw.picture_hash import difference_hash
from zerovl.model.encoder import Encoder
from zerovl.model.picture_embeddings import EncoderEmbedder
from zerovl.text_format import table

_SIDE = 128  # pixels
_BATCH = 50
_THRESHOLDS = (0.80, 0.90, 0.95, 0.98, 0.99, 0.995)
_WHOLE = 1 << 40  # pictures of a cluster: all are one
_SPLIT = 40  # pictures of a cluster, to see what clusters lose


def recoded(picture: Image.Image) -> Image.Image:
    """Write the picture as JPEG of quality 30 and read it again."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def cropped(picture: Image.Image) -> Image.Image:
    """Cut a twentieth off each side."""
    edge = _SIDE // 20
    return picture.crop((edge, edge, _SIDE - edge, _SIDE - edge)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def brightened(picture: Image.Image) -> Image.Image:
    """Make the picture a fifth brighter."""
    return ImageEnhance.Brightness(picture).enhance(1.2)


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recoded": recoded,
    "cropped": cropped,
    "brightened": brightened,
}


def drawn(originals: int) -> Iterator[tuple[int, str, Image.Image]]:
    """Give original pictures, then a copy of each in one of the ways: (number of the original, way, picture)."""
    scenes = all_scenes()
    random.Random("near copies").shuffle(scenes)
    styles = list(STYLES)
    pictures = [
        STYLES[styles[number % len(styles)]](scenes[number], _SIDE, random.Random(f"near copies/{number}"))
        for number in range(originals)
    ]
    yield from ((number, "", picture) for number, picture in enumerate(pictures))
    kinds = list(KINDS)
    for number, picture in enumerate(pictures):
        kind = kinds[number // len(styles) % len(kinds)]
        yield number, kind, KINDS[kind](picture)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--originals", type=int, default=300)
    options = parser.parse_args()
    embedder = EncoderEmbedder(Encoder.load(options.model))
    found = list(drawn(options.originals))
    owners = np.array([number for number, _, _ in found])
    kinds = np.array([kind for _, kind, _ in found])
    pictures = [picture for _, _, picture in found]
    embeddings = np.concatenate(
        [embedder.embeddings(pictures[start : start + _BATCH]) for start in range(0, len(pictures), _BATCH)]
    ).astype(np.float16)
    rows: list[tuple[str, ...]] = [("bound", "clusters", "recall", *KINDS, "precision", "left out")]

    def add(bound: str, largest: str, left: np.ndarray, twins: np.ndarray) -> None:
        right = owners[left] == owners[twins]
        hit = np.zeros(len(found), bool)
        hit[left] = True
        shares = [hit[kinds == kind].mean() for kind in KINDS]
        precision = f"{right.mean():.3f}" if len(left) else "-"
        recall = f"{hit[kinds != ''].mean():.3f}"
        rows.append((bound, largest, recall, *(f"{share:.2f}" for share in shares), precision, str(len(left))))

    places = np.arange(len(found))
    for threshold in _THRESHOLDS:
        for largest, name in ((_WHOLE, "one"), (_SPLIT, str(_SPLIT))):
            copies = [
                find_copies(embeddings, cluster, threshold) for cluster in clusters(embeddings, places, largest, 0)
            ]
            left, twins = (np.concatenate([getattr(each, of) for each in copies]) for of in ("places", "twins"))
            add(f"cosine {threshold:g}", name, left, twins)
    hashes = np.array([difference_hash(picture) for picture in pictures], np.uint64)
    for distance in (2, 4, 8):
        later: dict[int, int] = {}
        for first, second in near_pairs(hashes, distance).tolist():
            if first not in later:
                later.setdefault(second, first)  # as the filter: one that stays takes away those behind it
        add(f"{distance} bits", "-", np.array([*later], int), np.array([*later.values()], int))
    print(table(rows))


if __name__ == "__main__":
    main()
