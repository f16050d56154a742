"""Small raw sources in several layouts, drawn here: independent of `prepare` and of the demo."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from zerovl.data.manifest import Manifest
from zerovl.params import DataParams, FilterParams, Params, PrepareParams, SourceParams
from zerovl.stages import prepare
from zerovl.workspace import Workspace

HEADER = ("image", "image_id", "caption", "caption_id")


def picture(seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    grid = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    return encoded(picture(seed, size), quality=90)


def write_csv(path: Path, rows: Iterable[Iterable[object]], header: Iterable[str] = HEADER) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_zerovl(folder: Path, split: str, count: int, first: int = 0) -> None:
    """`count` pictures with two captions each."""
    rows = []
    for number in range(first, first + count):
        place = folder / split / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(jpeg(number))
        rows += [(place.name, number, f"picture {number}, take {take}", 10 * number + take) for take in (1, 2)]
    write_csv(folder / f"{split}_anno.csv", rows)


def write_tar(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            header = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def sample(key: str, seed: int, caption: str = "a caption") -> list[tuple[str | tarfile.TarInfo, bytes]]:
    """One sample as img2dataset writes it."""
    description = {"key": key.rpartition("/")[2], "caption": caption, "status": "success", "url": "http://x/a.jpg"}
    return [
        (f"{key}.jpg", jpeg(seed)),
        (f"{key}.json", json.dumps(description).encode()),
        (f"{key}.txt", caption.encode()),
    ]


def samples(keys: Iterable[str]) -> list[tuple[str | tarfile.TarInfo, bytes]]:
    """A sample of each key, whose caption names it."""
    return [member for seed, key in enumerate(keys) for member in sample(key, seed, f"caption of {key}")]


def asked_filters(**asked: Any) -> FilterParams:
    """Those filters and no others, not even those that are on by default."""
    return FilterParams(**{"min_side": 0, "leaks": "keep"} | asked)


def run_prepare(root: Path, **settings: Any) -> Manifest:
    """`prepare` over the folders of `root/raw`, without a tokenizer and filters unless asked for."""
    values = {"tokenizer_vocab": 0, "shard_samples": 4, "filters": asked_filters()} | settings
    return prepare.run(Params(data=DataParams(raw="raw"), prepare=PrepareParams(**values)), Workspace(root))


def run_sources(root: Path, *sources: dict[str, Any], **settings: Any) -> Manifest:
    """`prepare` over sources that are named one by one, without a tokenizer and filters unless asked for."""
    values = {"tokenizer_vocab": 0, "filters": asked_filters()} | settings
    chosen = DataParams(sources=[SourceParams(**source) for source in sources])
    return prepare.run(Params(data=chosen, prepare=PrepareParams(**values)), Workspace(root))


def rows(manifest: Manifest, source: str, split: str = "train") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(manifest.table_path(source, split)).to_pylist()
    return found


def errors(manifest: Manifest, source: str, split: str = "train") -> dict[str, str]:
    """origin -> reason of all quarantined rows."""
    return {row["origin"]: row["error"] for row in rows(manifest, source, split) if row["error"] is not None}


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
