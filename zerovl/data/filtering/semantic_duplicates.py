"""Training pictures that a model sees as nearly the same: a filter after SemDeDup (arXiv 2303.09540).

Pictures are embedded, put into clusters (`embedding_clusters`) and compared within them (`embedding_copies`); the first
of copies stays. Valid splits are neither looked at nor compared with: a score on them must not depend on the model.

On disk each picture takes two bytes a number of its embedding until the filter has ended, 100 GB for 100 million of
512; in memory some 30 bytes. A cosine is as exact as float32 on the machine that computed it, so another machine may
decide otherwise about pictures on the bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from tqdm import tqdm

from zerovl.data.filtering.embedding_clusters import clusters
from zerovl.data.filtering.embedding_copies import find_copies
from zerovl.data.filtering.fates import Fates
from zerovl.data.filtering.filter_models import note_model
from zerovl.data.filtering.usable_rows import Numbers, TableRows, UsableRows
from zerovl.data.shards import ShardReader
from zerovl.errors import ZeroVLError
from zerovl.images import decode_rgb
from zerovl.params import SemanticDuplicatesParams
from zerovl.picture_reader import ANY_PIXELS

_BATCH = 128  # pictures
_NAME = "semantic_duplicates"

Stored = npt.NDArray[np.float16]


class PictureEmbedder(Protocol):
    """Embeds pictures.

    Attributes:
        digest: equal for models that give the same embeddings.
        width: of an embedding, D.
    """

    digest: str
    width: int

    def embeddings(self, pictures: Iterable[Image.Image]) -> npt.NDArray[np.float32]:
        """Return (n, D) L2-normalised embeddings of RGB pictures."""
        ...


def leave_out_semantic(
    rows: UsableRows,
    fates: Fates,
    scratch: Path,
    shards: Path,
    settings: SemanticDuplicatesParams,
    embedder: PictureEmbedder,
) -> None:
    """Leave out training pictures whose cosine to an earlier one that stays is above `max_cosine`.

    Raises `ZeroVLError` where an embedding is not finite.
    """
    note_model(rows.manifest.folder, _NAME, settings.model, embedder.digest)
    tables = [table for table in rows.tables if table.split == "train"]
    numbers = [_stay(table, fates) for table in tables]
    if not any(map(len, numbers)):
        return
    path = scratch / "embeddings"
    _write_embeddings(path, rows, fates, shards, embedder)
    every = np.concatenate(numbers)  # (N,) the picture of each row of the file
    embeddings: Stored = np.memmap(path, np.float16, "r", shape=(len(every), embedder.width))  # (N, D)
    bounds = np.cumsum([0, *map(len, numbers)]).tolist()
    groups = [(0, len(every))] if settings.compared == "all" else list(pairwise(bounds))
    for first, end in groups:
        with tqdm(total=end - first, desc="alike by embeddings", unit=" pictures", delay=1) as bar:
            places = np.arange(first, end, dtype=np.int64)
            for cluster in clusters(embeddings, places, settings.cluster_pictures, settings.seed):
                copies = find_copies(embeddings, cluster, settings.max_cosine)
                fates.leave_out_by_cosine(every[copies.places], every[copies.twins], copies.cosines)
                bar.update(len(cluster))
    path.unlink()


def _stay(table: TableRows, fates: Fates) -> Numbers:
    numbers = np.arange(table.samples.start, table.samples.stop, dtype=np.int64)
    return numbers[fates.stays(numbers)]


def _write_embeddings(path: Path, rows: UsableRows, fates: Fates, shards: Path, embedder: PictureEmbedder) -> None:
    """Write the embeddings of all training pictures that stay so far, one after another."""
    reader = ShardReader(shards)
    total = sum(len(table.samples) for table in rows.tables if table.split == "train")
    with open(path, "wb") as file, tqdm(total=total, desc="embeddings", unit=" pictures", delay=1) as bar:
        for numbers, part in rows.batches(["key", "shard", "offset", "size"], "train"):
            listed = part.filter(pa.array(fates.stays(numbers))).to_pylist()
            for start in range(0, len(listed), _BATCH):
                batch = listed[start : start + _BATCH]
                samples = (reader.read(row["shard"], row["offset"], row["size"]) for row in batch)
                made = embedder.embeddings(decode_rgb(sample.image, ANY_PIXELS) for sample in samples)
                _check_finite(made, batch)
                file.write(made.astype(np.float16).tobytes())
                bar.update(len(batch))
            bar.update(len(numbers) - len(listed))
    reader.close()


def _check_finite(embeddings: npt.NDArray[np.float32], rows: list[dict[str, Any]]) -> None:
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise ZeroVLError(
            f"{rows[broken[0]]['key']}: the model of prepare.filters.{_NAME} gives an embedding that is not finite; "
            "name another model"
        )
