"""An index of embeddings that are there already: an .npz or .parquet of `zerovl embed`.

Of an .npz:

image_embeddings (N, D)         needed; of rows with the same image_id the first counts
key (N,)                        what the pictures are called; else `image`, else `image_id`
images, path (N,), offset (N,), size (N,)    where they lie; else `images` and `image`; else, or where `images` is not
                                here, only keys are shown
model                           digest of the model

`zerovl.indexing.stored_parquet` has what of a .parquet is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zerovl.errors import ZeroVLError
from zerovl.evaluation.npz_files import read_npz
from zerovl.indexing.alone import alone
from zerovl.indexing.index import Description, Maker
from zerovl.indexing.listing import Listed
from zerovl.indexing.stored import StoredEmbeddings, StoredPart, normalised, place
from zerovl.indexing.stored_parquet import ParquetEmbeddings
from zerovl.indexing.update import PART, prepared, put_in_place
from zerovl.indexing.writing import IndexWriter
from zerovl.log import logger

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder

Arrays = Mapping[str, npt.NDArray[Any]]


def index_arrays(folder: Path, file: Path, encoder: Encoder, reference: str, dtype: str | None) -> Description:
    """Make the embeddings of a file the index in `folder`; returns what it is now.

    Raises `ZeroVLError` where the file has no embeddings, or such as the model cannot have made.
    """
    model = Maker.of(encoder, reference)
    width = encoder.encode_text([""]).shape[1]
    stored = STORED[file.suffix](file, width)
    if not stored.model:
        logger().warning(f"{file}: says no model; its embeddings are taken to be of {model}")
    elif stored.model != model.digest:
        raise ZeroVLError(
            f"{file}: made with a model {stored.model[:12]}, and the model is {model}; give the one it is of"
        )
    images = stored.images
    if images and not Path(images).exists():
        logger().warning(f"{file}: its pictures are not in {images} here, so the index holds keys and embeddings alone")
        images = ""
    with alone(folder):
        before = prepared(folder, Path(images) if images else None, model, dtype, width)
        described = replace(before, images=images, number=before.number + 1, broken=0)
        with IndexWriter(folder, described) as writer:
            for part in stored.parts(PART):
                if part.places is None or not images:
                    writer.add_without_files(part.keys, part.embeddings)
                else:
                    writer.add(part.places, part.embeddings)
        described = replace(described, pictures=writer.rows, digest=writer.digest)
        put_in_place(folder, described)
    return described


class NpzEmbeddings:
    """The arrays of an .npz."""

    def __init__(self, file: Path, width: int) -> None:
        """Read an .npz with embeddings of `width`; raises `ZeroVLError` where it has none."""
        self._file, self._arrays = file, read_npz(file)
        self._embeddings = normalised(file, _checked(file, self._arrays, width), 0)
        self.model, self.images = (
            str(self._arrays[name]) if name in self._arrays else "" for name in ("model", "images")
        )

    def parts(self, size: int) -> Iterator[StoredPart]:
        """Give all pictures, each once."""
        rows = np.arange(len(self._embeddings))
        if "image_id" in self._arrays:
            rows = np.sort(np.unique(self._arrays["image_id"], return_index=True)[1])
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            keys, places = _places(self._arrays, part)
            yield StoredPart(keys, self._embeddings[part], places)


STORED: dict[str, Callable[[Path, int], StoredEmbeddings]] = {".npz": NpzEmbeddings, ".parquet": ParquetEmbeddings}


def _checked(npz: Path, arrays: Arrays, width: int) -> npt.NDArray[Any]:
    """The embeddings (N, D), of any length."""
    if "image_embeddings" not in arrays:
        raise ZeroVLError(f"{npz}: no image_embeddings; found {', '.join(arrays) or 'nothing'}")
    found = arrays["image_embeddings"]
    if found.ndim != 2 or found.shape[1] != width or not len(found) or not np.issubdtype(found.dtype, np.floating):
        raise ZeroVLError(f"{npz}: image_embeddings {found.dtype} {found.shape}; the model's are floats (N, {width})")
    if wrong := [name for name in ("key", "image", "image_id", "path") if len(arrays.get(name, found)) != len(found)]:
        raise ZeroVLError(f"{npz}: {len(arrays[wrong[0]])} {wrong[0]} and {len(found)} image_embeddings")
    return found


def _places(arrays: Arrays, part: npt.NDArray[np.int64]) -> tuple[list[str], list[Listed] | None]:
    """Keys of some rows, and where they lie, None where that is not known."""
    names = next((arrays[name] for name in ("key", "image", "image_id") if name in arrays), None)
    keys = [str(row) for row in part] if names is None else [str(name) for name in names[part]]
    paths = arrays.get("path", arrays.get("image"))
    if paths is None:
        return keys, None
    whole = {"offset": np.zeros(1, np.int64), "size": np.full(1, -1)}
    offsets, sizes = (
        arrays[name][part].tolist() if name in arrays else whole[name].repeat(len(part)).tolist()
        for name in ("offset", "size")
    )
    return keys, [
        place(key, str(path), offset, None if size < 0 else size)
        for key, path, offset, size in zip(keys, paths[part], offsets, sizes, strict=True)
    ]
