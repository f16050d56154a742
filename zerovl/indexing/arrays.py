"""An index of embeddings that are there already: an .npz of `zerovl embed`.

image_embeddings (N, D)         needed; of rows with the same image_id the first counts
key (N,)                        what the pictures are called; else `image`, else `image_id`
images, path (N,), offset (N,), size (N,)    where they lie; else `images` and `image`; else, or where `images` is not
                                here, only keys are shown
model                           digest of the model
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zerovl.data.raw.records import Picture
from zerovl.errors import ZeroVLError
from zerovl.indexing.index import Description, Maker
from zerovl.indexing.listing import IDENTITY_BYTES, Listed
from zerovl.indexing.update import PART, alone, prepared, put_in_place
from zerovl.indexing.writing import IndexWriter
from zerovl.log import logger

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder

Arrays = Mapping[str, npt.NDArray[Any]]
_NO_FILE = bytes(IDENTITY_BYTES)  # identity of what was not embedded from a file that was seen


def index_arrays(folder: Path, npz: Path, encoder: Encoder, reference: str, dtype: str | None) -> Description:
    """Make the embeddings of an .npz the index in `folder`; returns what it is now.

    Raises `ZeroVLError` where the file has no embeddings, or such as the model cannot have made.
    """
    model = Maker.of(encoder, reference)
    arrays = _read(npz)
    embeddings = _checked(npz, arrays, encoder.encode_text([""]).shape[1])
    if "model" not in arrays:
        logger().warning(f"{npz}: says no model; its embeddings are taken to be of {model}")
    elif (found := str(arrays["model"])) != model.digest:
        raise ZeroVLError(f"{npz}: made with a model {found[:12]}, and the model is {model}; give the one it is of")
    rows = np.arange(len(embeddings))
    if "image_id" in arrays:
        rows = np.sort(np.unique(arrays["image_id"], return_index=True)[1])
    images = str(arrays["images"]) if "images" in arrays else ""
    if images and not Path(images).exists():
        logger().warning(f"{npz}: its pictures are not in {images} here, so the index holds keys and embeddings alone")
        images = ""
    with alone(folder):
        before = prepared(folder, Path(images) if images else None, model, dtype, embeddings.shape[1])
        described = replace(before, images=images, number=before.number + 1, pictures=len(rows), broken=0)
        with IndexWriter(folder, described) as writer:
            for start in range(0, len(rows), PART):
                part = rows[start : start + PART]
                keys, places = _places(arrays, part, images)
                if places is None:
                    writer.add_without_files(keys, embeddings[part])
                else:
                    writer.add(places, embeddings[part])
        put_in_place(folder, described)
    return described


def _read(npz: Path) -> Arrays:
    try:
        with np.load(npz, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ZeroVLError(f"{npz}: not an .npz that can be read ({error}); make it with `zerovl embed`") from None


def _checked(npz: Path, arrays: Arrays, width: int) -> npt.NDArray[np.float32]:
    """The embeddings (N, D), as long as they should be."""
    if "image_embeddings" not in arrays:
        raise ZeroVLError(f"{npz}: no image_embeddings; found {', '.join(arrays) or 'nothing'}")
    found = arrays["image_embeddings"]
    if found.ndim != 2 or found.shape[1] != width or not len(found) or not np.issubdtype(found.dtype, np.floating):
        raise ZeroVLError(f"{npz}: image_embeddings {found.dtype} {found.shape}; the model's are floats (N, {width})")
    if wrong := [name for name in ("key", "image", "image_id", "path") if len(arrays.get(name, found)) != len(found)]:
        raise ZeroVLError(f"{npz}: {len(arrays[wrong[0]])} {wrong[0]} and {len(found)} image_embeddings")
    embeddings: npt.NDArray[np.float32] = found.astype(np.float32)
    norms = np.linalg.norm(embeddings, axis=1)  # (N,)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise ZeroVLError(f"{npz}: row {int(np.argmin(np.isfinite(norms) & (norms > 0)))} is not finite, or is zero")
    off = np.abs(norms - 1) > 1e-3  # made elsewhere; those that are normalised keep their last bit
    embeddings[off] /= norms[off, None]
    return embeddings


def _places(arrays: Arrays, part: npt.NDArray[np.int64], images: str) -> tuple[list[str], list[Listed] | None]:
    """Keys of some rows, and where they lie, None where that is not known."""
    names = next((arrays[name] for name in ("key", "image", "image_id") if name in arrays), None)
    keys = [str(row) for row in part] if names is None else [str(name) for name in names[part]]
    paths = arrays.get("path", arrays.get("image"))
    if not images or paths is None:
        return keys, None
    whole = {"offset": np.zeros(1, np.int64), "size": np.full(1, -1)}
    offsets, sizes = (
        arrays[name][part].tolist() if name in arrays else whole[name].repeat(len(part)).tolist()
        for name in ("offset", "size")
    )
    return keys, [
        Listed(key, str(path), Picture(str(path), offset, None if size < 0 else size), _NO_FILE)
        for key, path, offset, size in zip(keys, paths[part], offsets, sizes, strict=True)
    ]
