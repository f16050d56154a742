"""`zerovl embed | score | search`: a model at work on pairs, on embeddings and on a folder of pictures."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

import zerovl
from zerovl.errors import ZeroVLError
from zerovl.evaluation.drawing import Row, Tile, draw
from zerovl.evaluation.pool import Model
from zerovl.evaluation.retrieval import METRICS, retrieval_metrics, top_items
from zerovl.files import atomic_write
from zerovl.images import BrokenImageError, decode_rgb

COLUMNS = ("image", "image_id", "caption", "caption_id")
ARRAYS = ("image_embeddings", "text_embeddings", "image_id")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
BATCH = 128
MAX_FIELD = 1 << 24  # characters of a CSV field; Python's own limit is 131,072
NAMED = 5  # skipped files that a message lists


@dataclass(frozen=True)
class Pair:
    row: int  # line of the CSV where it ends
    image: str
    image_id: int
    caption: str
    caption_id: int


def embed(model: str, pairs: Path, images: Path, out: Path) -> None:
    """Write an .npz with `image_embeddings` (M, D), `text_embeddings` (M, D), `image_id` and `caption_id` (M,).

    One row a caption row of the CSV, in its order; a picture of several rows is encoded once.
    Raises `ZeroVLError` that names file, row and fix; then nothing is written.
    """
    rows = read_pairs(pairs)
    names = list(dict.fromkeys(row.image for row in rows))
    lines = {row.image: row.row for row in reversed(rows)}  # where each picture is first named
    missing = [name for name in names if not (images / name).is_file()]
    if missing:
        raise ZeroVLError(
            f"{pairs}, line {lines[missing[0]]}: picture {missing[0]!r} is not in {images} ({len(missing)} of "
            f"{len(names)} are not); add it, or give the right folder with --images"
        )
    encoder = zerovl.load(model)
    parts = []
    with tqdm(total=len(names), desc="pictures", unit="", leave=False) as bar:
        for batch in _batches(names):
            parts.append(encoder.encode_pixels(_pixels(encoder, batch, images, pairs, lines)))
            bar.update(len(batch))
    place = {name: number for number, name in enumerate(names)}
    image_emb = torch.cat(parts)[[place[row.image] for row in rows]]  # (M, D)
    text_emb = encoder.encode_text([row.caption for row in rows], batch_size=BATCH)  # (M, D)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "image_embeddings": image_emb.numpy(),
        "text_embeddings": text_emb.numpy(),
        "image_id": np.array([row.image_id for row in rows], np.int64),
        "caption_id": np.array([row.caption_id for row in rows], np.int64),
    }
    with atomic_write(out) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    print(f"{out}: {len(rows)} captions and {len(names)} pictures, {image_emb.shape[1]} wide")


def score(file: Path) -> None:
    """Print the retrieval metrics of embeddings as JSON, percent; rows as `embed` writes them."""
    arrays = read_embeddings(file)
    ids = arrays["image_id"]
    try:
        metrics = retrieval_metrics(arrays["image_embeddings"], arrays["text_embeddings"], ids, ids).metrics
    except ZeroVLError as error:
        raise ZeroVLError(f"{file}: {error}") from None
    print(json.dumps({name: metrics[name] for name in (*METRICS, "rsum")}))


def search(model: str, query: str, images: Path, top: int, out: Path | None) -> None:
    """Print rank, cosine and path of the `top` pictures of a folder, its sub-folders included."""
    if top < 1:
        raise ZeroVLError(f"--top {top}: must be 1 or more")
    if not query.strip():
        raise ZeroVLError("the query is empty; say what to look for")
    if not images.is_dir():
        raise ZeroVLError(f"{images}: no such folder; give the one with the pictures with --images")
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ZeroVLError(f"{images}: no pictures in it ({', '.join(sorted(SUFFIXES))})")
    encoder = zerovl.load(model)
    usable, embeddings, skipped = _embed_files(encoder, files)
    if skipped:
        more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
        print(f"skipped {len(skipped)} unreadable: {'; '.join(skipped[:NAMED])}{more}")
    if not usable:
        raise ZeroVLError(f"{images}: none of the {len(files)} pictures can be read")
    rows, scores = top_items(encoder.encode_text([query], batch_size=1)[0], embeddings, top)
    for place, (row, value) in enumerate(zip(rows, scores, strict=True), 1):
        print(f"{place:4}  {value:.4f}  {usable[row]}")
    if out is not None:
        tiles = [
            Tile(decode_rgb(usable[row].read_bytes()), "none", f"{place}  {value:.2f}  {usable[row].name}")
            for place, (row, value) in enumerate(zip(rows, scores, strict=True), 1)
        ]
        draw([Row("", "", tiles)], query, f"{len(tiles)} of {len(usable):,} pictures in {images.name}", out)
        print(f"drawn: {out}")


def read_pairs(path: Path) -> list[Pair]:
    """Rows of a CSV with the columns of `COLUMNS` in any order; raises `ZeroVLError` naming the line."""
    csv.field_size_limit(MAX_FIELD)
    rows = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if lacking:
                raise ZeroVLError(
                    f"{path}: no column {', '.join(lacking)}; found {', '.join(reader.fieldnames or []) or 'nothing'}, "
                    f"expected {', '.join(COLUMNS)}"
                )
            for values in reader:
                rows.append(_pair(path, reader.line_num, values))
    except OSError as error:
        raise ZeroVLError(f"{path}: cannot be read ({error.strerror}); give a CSV with --pairs") from None
    except UnicodeDecodeError as error:
        raise ZeroVLError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except csv.Error as error:
        raise ZeroVLError(f"{path}: {error}, after line {reader.line_num}; mend the row there") from None
    if not rows:
        raise ZeroVLError(f"{path}: has no rows; give a CSV with at least one pair")
    return rows


def read_embeddings(file: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Arrays of `ARRAYS`, read without pickle; raises `ZeroVLError` where one is missing or unreadable."""
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ZeroVLError(f"{file}: a single array, expected an .npz with {', '.join(ARRAYS)}")
        with loaded as archive:
            lacking = [name for name in ARRAYS if name not in archive]
            if lacking:
                raise ZeroVLError(
                    f"{file}: no array {', '.join(lacking)}; found {', '.join(archive) or 'none'}; "
                    "make the file with `zerovl embed`"
                )
            return {name: archive[name] for name in ARRAYS}
    except FileNotFoundError:
        raise ZeroVLError(f"{file}: no such file; make it with `zerovl embed`") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ZeroVLError(f"{file}: not a readable .npz ({error}); make it with `zerovl embed`") from None


def _pair(path: Path, line: int, values: dict[str, str | None]) -> Pair:
    numbers = {}
    for name in COLUMNS:
        value = values[name]
        if value is None or not value.strip():
            raise ZeroVLError(f"{path}, line {line}: {name} is empty; fill it in or delete the row")
        if name.endswith("_id"):
            try:
                numbers[name] = int(value)
            except ValueError:
                raise ZeroVLError(f"{path}, line {line}: {name} is {value!r}, expected an integer") from None
    return Pair(line, str(values["image"]), numbers["image_id"], str(values["caption"]), numbers["caption_id"])


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _pixels(model: Model, names: Sequence[str], images: Path, pairs: Path, lines: dict[str, int]) -> torch.Tensor:
    """Pictures through the evaluation transform, uint8 (n, 3, H, W)."""
    pixels = []
    for name in names:
        try:
            pixels.append(model.transform(decode_rgb((images / name).read_bytes())))
        except (BrokenImageError, OSError) as error:
            raise ZeroVLError(
                f"{pairs}, line {lines[name]}: picture {images / name} cannot be read ({error}); "
                "replace it or delete its rows"
            ) from None
    return torch.stack(pixels)


def _embed_files(model: Model, files: Sequence[Path]) -> tuple[list[Path], torch.Tensor, list[str]]:
    """Readable files, their embeddings (n, D), and what was skipped with its reason."""
    usable: list[Path] = []
    waiting: list[torch.Tensor] = []
    parts: list[torch.Tensor] = []
    skipped: list[str] = []
    for path in tqdm(files, desc="pictures", unit="", leave=False):
        try:
            waiting.append(model.transform(decode_rgb(path.read_bytes())))
        except (BrokenImageError, OSError) as error:
            skipped.append(f"{path} ({error})")
            continue
        usable.append(path)
        if len(waiting) == BATCH:
            parts.append(model.encode_pixels(torch.stack(waiting)))
            waiting = []
    if waiting:
        parts.append(model.encode_pixels(torch.stack(waiting)))
    return usable, torch.cat(parts) if parts else torch.empty(0, 0), skipped
