"""`zerovl embed`: the pairs of a CSV as embeddings in an .npz file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from zerovl.data.pairs_csv import COLUMNS, PairRow, read_rows
from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write
from zerovl.registry import fetch
from zerovl.text_format import plural

if TYPE_CHECKING:
    import torch

    from zerovl.evaluation.pool import Model

BATCH = 128


@dataclass(frozen=True)
class Pair:
    """One caption of a picture."""

    lines: str  # of the CSV, as "7" or "7-9"
    image: str
    image_id: int
    caption: str
    caption_id: int


def run(model: str, pairs: Path, images: Path, out: Path) -> None:
    """Write an .npz with `image_embeddings` (M, D), `text_embeddings` (M, D), `image_id` and `caption_id` (M,).

    One row a caption row of the CSV, in its order; a picture of several rows is encoded once.
    Raises `ZeroVLError` that names file, row and fix; then nothing is written.
    """
    rows = read_pairs(pairs)
    names = list(dict.fromkeys(row.image for row in rows))
    lines = {row.image: row.lines for row in reversed(rows)}  # where each picture is first named
    missing = [name for name in names if not (images / name).is_file()]
    if missing:
        raise ZeroVLError(
            f"{pairs}, line {lines[missing[0]]}: picture {missing[0]!r} is not in {images} ({len(missing)} of "
            f"{len(names)} are not); add it, or give the right folder with --images"
        )
    fetch.check_reference(model)
    import numpy as np  # and torch: after what was asked for is known to be there
    import torch

    import zerovl

    encoder = zerovl.load(model)
    parts = []
    with tqdm(total=len(names), desc="pictures", unit="", leave=False) as bar:
        for batch in _batches(names):
            parts.append(encoder.encode_pixels(_pixels(encoder, batch, images, pairs, lines)))
            bar.update(len(batch))
    place = {name: number for number, name in enumerate(names)}
    image_emb = torch.cat(parts)[[place[row.image] for row in rows]]  # (M, D)
    text_emb = encoder.encode_text([row.caption for row in rows], batch_size=BATCH)  # (M, D)
    arrays = {
        "image_embeddings": image_emb.numpy(),
        "text_embeddings": text_emb.numpy(),
        "image_id": np.array([row.image_id for row in rows], np.int64),
        "caption_id": np.array([row.caption_id for row in rows], np.int64),
    }
    with atomic_write(out) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    print(f"{out}: {plural(len(rows), 'caption')} and {plural(len(names), 'picture')}, {image_emb.shape[1]} wide")


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs of a CSV (see `pairs_csv`); raises `ZeroVLError` naming the line of the first bad one."""
    pairs = [_pair(path, row) for row in read_rows(path, strict=True)]
    if not pairs:
        raise ZeroVLError(f"{path}: has no rows; give a CSV with at least one pair")
    return pairs


def _pair(path: Path, row: PairRow) -> Pair:
    if row.problem:
        raise ZeroVLError(f"{path}, line {row.lines}: {row.problem}; fill it in or delete it")
    numbers = {}
    for name in COLUMNS:
        value: str = getattr(row, name)
        if not value.strip():
            raise ZeroVLError(f"{path}, line {row.lines}: {name} is empty; fill it in or delete the row")
        if name.endswith("_id"):
            try:
                numbers[name] = int(value)
            except ValueError:
                raise ZeroVLError(f"{path}, line {row.lines}: {name} is {value!r}, expected an integer") from None
    return Pair(row.lines, row.image, numbers["image_id"], row.caption, numbers["caption_id"])


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _pixels(model: Model, names: Sequence[str], images: Path, pairs: Path, lines: dict[str, str]) -> torch.Tensor:
    """Return pictures through the evaluation transform, uint8 (n, 3, H, W)."""
    import torch

    from zerovl.images import BrokenImageError, decode_rgb

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
