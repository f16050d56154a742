"""`zerovl search`: the pictures of a folder or an index, ranked by a query."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zerovl.commands.picture_files import picture_files
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.registry import fetch, known_models
from zerovl.text_format import names

if TYPE_CHECKING:
    import torch

    from zerovl.evaluation.pool import Model
    from zerovl.indexing.index import Index
    from zerovl.indexing.search import Found
    from zerovl.model.query_encoder import NumpyQueryEncoder
    from zerovl.model.text_encoder import QueryEncoder

BATCH = 128
NAMED = 5  # skipped files that a message lists
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def run(model: str, query: str, images: Path, top: int, out: Path | None) -> None:
    """Print rank, cosine and path of the `top` pictures of a folder, its sub-folders included."""
    _check(query, top)
    files = picture_files(images)
    fetch.check_reference(model)
    import zerovl  # and torch: after what was asked for is known to be there
    from zerovl.evaluation.report.drawing import Row, Tile, draw
    from zerovl.evaluation.retrieval import top_items
    from zerovl.images import decode_rgb

    encoder = zerovl.load(model)
    usable, embeddings, skipped = _embed_files(encoder, files)
    if skipped:
        logger().warning(f"skipped {len(skipped)} unreadable: {names(skipped, NAMED)}")
    if not usable:
        raise ZeroVLError(f"{images}: none of the {len(files)} pictures can be read")
    rows, scores = top_items(encoder.encode_text([query], batch_size=1)[0], embeddings, top)
    for place, (row, value) in enumerate(zip(rows, scores, strict=True), 1):
        print(f"{place:4}  {value:.4f}  {usable[row]}")
    if out is not None:
        tiles = [
            Tile(decode_rgb(usable[row].read_bytes()), "none", f"{place}  {value:.2f}", usable[row].name)
            for place, (row, value) in enumerate(zip(rows, scores, strict=True), 1)
        ]
        draw([Row("", "", tiles)], query, f"{len(tiles)} of {len(usable):,} pictures in {images.name}", out)
        print(f"drawn: {out}")


def run_index(model: str, query: str, folder: Path, top: int, out: Path | None, exact: bool = False) -> None:
    """Print rank, cosine and path or key of the `top` pictures of an index; none of them is embedded.

    `exact` looks at all pictures, whatever file for approximate search the index has.
    """
    _check(query, top)
    if not folder.is_dir():
        raise ZeroVLError(f"{folder}: no such folder; make an index with `zerovl index`")
    fetch.check_reference(model)
    _import_numpy()
    import numpy as np

    from zerovl.indexing.approximate import open_nearest
    from zerovl.indexing.index import Index
    from zerovl.indexing.search import find, nearest

    index = Index(folder)
    index.check_images()
    encoder = load_query_encoder(model)
    index.check_model(model, encoder.digest)
    search = nearest if exact else open_nearest(index)
    found = find(index, np.asarray(encoder.encode_text([query])[0]), top, search=search)
    if found.gone:
        logger().warning(
            f"skipped {len(found.gone)} that are gone since: {names(found.gone, NAMED)}; run `zerovl index` again"
        )
    for place, (one, score) in enumerate(zip(found.pictures, found.scores, strict=True), 1):
        print(f"{place:4}  {score:.4f}  {one.shown}")
    if out is not None:
        _draw_found(query, index, found, out)


def _import_numpy() -> None:
    """Import NumPy so that it multiplies with one thread, unless the environment says how many.

    For a few words several wait for each other longer than they compute: of the text tower of a ViT-B/32's CLIP two
    threads took 1.4 s of a busy processor, one takes 0.05. OpenBLAS looks at the variable when it is loaded.
    """
    if _BLAS_THREADS in os.environ:
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        import numpy  # noqa: F401
    finally:
        del os.environ[_BLAS_THREADS]


def load_query_encoder(model: str) -> NumpyQueryEncoder | QueryEncoder:
    """Load the half of a model that reads words, as `zerovl.load` loads the whole; raises `ZeroVLError` as it does.

    Of a model that was read whole before, and has not changed since, the other half is not read.
    """
    with fetch.opened(model, check=known_models.check) as folder:
        from zerovl.model.query_encoder import NumpyQueryEncoder

        before = known_models.stamp(folder)
        known = known_models.digest(folder, before)
        if (found := NumpyQueryEncoder.load(folder, known)) is not None:
            if known is None:
                known_models.keep(folder, before, found.digest)
            return found
        from zerovl.model.text_encoder import QueryEncoder  # and torch: for other towers, and for what is wrong

        return QueryEncoder.load(folder)


def _draw_found(query: str, index: Index, found: Found, out: Path) -> None:
    from zerovl.evaluation.report.drawing import Row, Tile, draw
    from zerovl.images import BrokenImageError, decode_rgb
    from zerovl.indexing.index import read_bytes

    tiles = []
    for place, (one, score) in enumerate(zip(found.pictures, found.scores, strict=True), 1):
        try:
            image = decode_rgb(read_bytes(one.picture)) if one.picture else None
        except (BrokenImageError, OSError) as error:
            logger().warning(f"not drawn: {one.key} ({error}); run `zerovl index` again")
            continue
        if image is not None:
            tiles.append(Tile(image, "none", f"{place}  {score:.2f}", Path(one.key).name))
    if not tiles:
        raise ZeroVLError(f"{index.folder}: holds embeddings alone, so nothing is drawn; leave --out out")
    draw([Row("", "", tiles)], query, f"{len(tiles)} of {len(index):,} pictures in {index.folder.name}", out)
    print(f"drawn: {out}")


def _check(query: str, top: int) -> None:
    if top < 1:
        raise ZeroVLError(f"--top {top}: must be 1 or more")
    if not query.strip():
        raise ZeroVLError("the query is empty; say what to look for")


def _embed_files(model: Model, files: Sequence[Path]) -> tuple[list[Path], torch.Tensor, list[str]]:
    """Return readable files, their embeddings (n, D), and what was skipped with its reason."""
    import torch
    from tqdm import tqdm

    from zerovl.images import BrokenImageError, decode_rgb

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
