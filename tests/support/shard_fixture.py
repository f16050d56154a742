"""Small shards with index and manifest, written by tarfile: independent of `prepare` and of the reader."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from zerovl.data.manifest import INDEX_DTYPE, SCHEMA, Manifest, ShardInfo, SplitInfo
from zerovl.data.special_tokens import SpecialTokens
from zerovl.files import sha256_file


@dataclass(frozen=True)
class Written:
    manifest: Manifest
    shards: Path


def jpeg(side: int, seed: int) -> bytes:
    """A smooth picture, so that crops and colours show in the pixels."""
    grid = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def captions_of(source: str, row: int) -> list[str]:
    words = ["red", "green", "blue", "small", "large", "round", "square", "left", "right", "above"]
    first = [source, str(row), *(words[(row + i) % 10] for i in range(3 + row % 4))]
    return [" ".join(first), " ".join(reversed(first)), f"{source} {row}"][: 1 + row % 3]


def write(
    root: Path, sizes: dict[str, int], *, split: str = "train", side: int = 32, shard_samples: int = 7
) -> Written:
    """Sources of `sizes` samples each under root/shards and root/manifest."""
    folder = root / "manifest"
    folder.mkdir(parents=True)
    splits = {}
    for source, pairs in sizes.items():
        shards, records, rows = [], [], []
        for start in range(0, pairs, shard_samples):
            path = f"{source}/{split}/{start // shard_samples:06d}.tar"
            numbers = range(start, min(start + shard_samples, pairs))
            spans = _write_shard(root / "shards" / path, source, numbers, side)
            digest = sha256_file(root / "shards" / path)
            shards.append(ShardInfo(path, len(numbers), (root / "shards" / path).stat().st_size, digest))
            records += [(len(shards) - 1, offset, size) for offset, size in spans]
            rows += [_row(source, split, path, n, *span) for n, span in zip(numbers, spans, strict=True)]
        manifest = Manifest(folder, {})
        np.save(manifest.index_path(source, split), np.array(records, dtype=INDEX_DTYPE))
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), manifest.table_path(source, split))
        captions = sum(len(captions_of(source, n)) for n in range(pairs))
        splits[source, split] = SplitInfo(pairs, captions, 0, tuple(shards))
    Manifest(folder, splits).save()
    return Written(Manifest.load(folder), root / "shards")


def _write_shard(path: Path, source: str, numbers: range, side: int) -> list[tuple[int, int]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    spans = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in numbers:
            start = tar.offset
            captions = captions_of(source, number)
            record = {
                "image_id": number,
                "captions": captions,
                "caption_ids": [10 * number + i for i in range(len(captions))],
                "source": source,
            }
            for extension, content in (("jpg", jpeg(side, number)), ("json", json.dumps(record).encode())):
                member = tarfile.TarInfo(f"{source}-{number}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            spans.append((start, tar.offset - start))
    return spans


def _row(source: str, split: str, shard: str, number: int, offset: int, size: int) -> dict[str, object]:
    return {
        "key": f"{source}-{number}",
        "source": source,
        "split": split,
        "shard": shard,
        "offset": offset,
        "size": size,
        "image_id": number,
        "captions": captions_of(source, number),
        "caption_ids": [10 * number + i for i in range(len(captions_of(source, number)))],
    }


class WordTokenizer:
    """One id a word by its bytes: [CLS] words [SEP], padded to the longest of the list."""

    special = SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4, vocab_size=1000)
    max_tokens = 1000  # no caption of these tests is that long

    def __call__(self, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return self.whole(captions)

    def whole(self, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [[2, *(5 + sum(word.encode()) % 995 for word in text.split()), 3] for text in captions]
        length = max(map(len, rows))
        ids = np.array([row + [0] * (length - len(row)) for row in rows], dtype=np.int64)
        mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows], dtype=np.int64)
        return ids, mask
