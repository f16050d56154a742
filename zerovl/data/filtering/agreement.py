"""Captions that fit their picture too badly, by the cosine that a model gives the two: a filter of training pairs.

The scores of all captions that the filters before left lie beside the manifest, those that are left out included:

    data/manifest/<source>-train.agreement.parquet    image_id, caption_id, score
    data/manifest/agreement.json                      the model and its digest

Valid splits are not looked at: a score on them must not depend on the model that chose them. In memory there is one
picture, a batch of them as the model sees them, and the scores of one source, 4 bytes each. A score is as exact as
float32 on the machine that computed it, so another machine may decide otherwise about a caption on the bound.

Shapes: n pictures of a batch, c their captions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from zerovl.data.filtering.fates import REASONS, Fates
from zerovl.data.filtering.filter_models import note_model
from zerovl.data.filtering.usable_rows import Numbers, TableRows, UsableRows
from zerovl.data.shards import ShardReader
from zerovl.files import atomic_write
from zerovl.images import decode_rgb
from zerovl.params import AgreementParams
from zerovl.picture_reader import ANY_PIXELS

_BATCH = 128  # pictures
_SCHEMA = pa.schema([("image_id", pa.int64()), ("caption_id", pa.int64()), ("score", pa.float32())])

Scores = npt.NDArray[np.float32]


class Scorer(Protocol):
    """Tells how well captions fit pictures.

    Attributes:
        digest: equal for models that give the same scores.
    """

    digest: str

    def scores(self, pictures: Iterable[Image.Image], captions: Sequence[str], owners: Numbers) -> Scores:
        """Return the cosine of each caption, (c,), with the one of `pictures` (n,) that `owners` (c,) says."""
        ...


def leave_out_disagreeing(
    rows: UsableRows, fates: Fates, shards: Path, settings: AgreementParams, scorer: Scorer
) -> None:
    """Leave out training captions whose score is below `min_score`, or not among the best of their source."""
    reader = ShardReader(shards)
    for table in rows.tables:
        if table.split == "train" and table.samples:
            bound = _score_table(rows, fates, table, reader, scorer, settings.keep_fraction)
            _leave_out_below(fates, table, max(bound, settings.min_score))
    reader.close()
    note_model(rows.manifest.folder, "agreement", settings.model, scorer.digest)


def _score_table(
    rows: UsableRows, fates: Fates, table: TableRows, reader: ShardReader, scorer: Scorer, keep_fraction: float
) -> float:
    """Score the captions that stay so far; returns the lowest score of the best `keep_fraction` of them."""
    found = [np.empty(0, np.float32)]
    path = rows.manifest.folder / f"{table.source}-train.agreement.parquet"
    with (
        atomic_write(path) as file,
        pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer,
        tqdm(total=len(table.samples), desc=f"{table.source}: agreement", unit=" samples", delay=1) as bar,
    ):
        for batch in _batches(rows, fates, table):
            samples = [reader.read(row["shard"], row["offset"], row["size"]) for row, _ in batch]
            pictures = (decode_rgb(sample.image, ANY_PIXELS) for sample in samples)  # decoded one at a time
            asked = [(owner, place) for owner, (_, places) in enumerate(batch) for place in places]
            captions = [batch[owner][0]["captions"][place] for owner, place in asked]
            owners = np.array([owner for owner, _ in asked], np.int64)
            scores = scorer.scores(pictures, captions, owners)  # (c,)
            numbers = np.array([batch[owner][0]["first"] + place for owner, place in asked], np.int64)
            fates.found[numbers] = scores
            fates.scored[numbers] = 1
            ids = {
                "image_id": [batch[owner][0]["image_id"] for owner, _ in asked],
                "caption_id": [batch[owner][0]["caption_ids"][place] for owner, place in asked],
            }
            writer.write_table(pa.table({**ids, "score": scores}, schema=_SCHEMA))
            found.append(scores)
            bar.update(len(batch))
    best = np.concatenate(found)
    stay = max(1, int(np.ceil(round(keep_fraction * len(best), 6))))  # 0.28 * 25 is a little more than 7
    return float(np.partition(best, len(best) - stay)[len(best) - stay]) if len(best) else -1.0


def _leave_out_below(fates: Fates, table: TableRows, bound: float) -> None:
    own = slice(table.captions.start, table.captions.stop)
    low = (fates.scored[own] > 0) & (fates.found[own] < bound)
    fates.captions[own][low] = REASONS.index("agreement")


def _batches(rows: UsableRows, fates: Fates, table: TableRows) -> Iterator[list[tuple[dict[str, Any], list[int]]]]:
    """Give samples that stay, some at a time, each with the places of its captions that stay.

    A sample is its row of the manifest with `first`, the number of its first caption.
    """
    batch: list[tuple[dict[str, Any], list[int]]] = []
    caption = table.captions.start
    columns = ["shard", "offset", "size", "image_id", "captions", "caption_ids"]
    for numbers, part in rows.table_batches(table, columns):
        for number, row in zip(numbers.tolist(), part.to_pylist(), strict=True):
            first, caption = caption, caption + len(row["captions"])
            places = [place for place in range(len(row["captions"])) if not fates.captions[first + place]]
            if places and not fates.samples[number]:
                batch.append((row | {"first": first}, places))
            if len(batch) == _BATCH:
                yield batch
                batch = []
    if batch:
        yield batch
