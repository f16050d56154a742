"""Read a table (Parquet) of `zerovl embed --pairs`, a group of rows at a time, as the arrays of an .npz.

Shapes: `M` rows, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zerovl.errors import ZeroVLError
from zerovl.parquet_files import open_parquet

SUFFIX = ".parquet"
_EMBEDDINGS = {"image_embedding": "image_embeddings", "text_embedding": "text_embeddings"}  # column -> array
_ID = "image_id"
_ROWS = 2048  # that are read at once


def read_pairs_table(file: Path, made_by: str) -> Mapping[str, npt.NDArray[Any]]:
    """Return `image_embeddings` (M, D), `text_embeddings` (M, D) and `image_id` (M,).

    Raises `ZeroVLError` where the file is no such table; `made_by` is the command that makes one, for messages.
    """
    make = f"make it with `{made_by}`"
    try:
        table = open_parquet(file)
    except FileNotFoundError:
        raise ZeroVLError(f"{file}: no such file; {make}") from None
    except (OSError, pa.ArrowException) as error:
        raise ZeroVLError(f"{file}: not a readable table ({error}); {make}") from None
    schema, rows = table.schema_arrow, table.metadata.num_rows
    if lacking := [name for name in (*_EMBEDDINGS, _ID) if name not in schema.names]:
        raise ZeroVLError(f"{file}: no column {', '.join(lacking)}; found {', '.join(schema.names)}; {make}")
    kinds = [schema.field(name).type for name in _EMBEDDINGS]
    if not all(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type) for kind in kinds):
        raise ZeroVLError(f"{file}: {' and '.join(_EMBEDDINGS)} are not lists of numbers of one length; {make}")
    found: dict[str, npt.NDArray[Any]] = {
        name: np.empty((rows, kind.list_size), np.float32)
        for name, kind in zip(_EMBEDDINGS.values(), kinds, strict=True)
    }
    found[_ID] = np.empty(rows, np.int64)
    row = 0
    for batch in table.iter_batches(_ROWS, columns=[*_EMBEDDINGS, _ID]):
        part = slice(row, row + len(batch))
        for column, name in _EMBEDDINGS.items():
            found[name][part] = batch.column(column).flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
        found[_ID][part] = batch.column(_ID).to_numpy(zero_copy_only=False)
        row += len(batch)
    return found
