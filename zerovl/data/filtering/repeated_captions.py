"""Captions that so many training pictures have that they say nothing of one: all copies of them are left out.

Letter case and the number of spaces do not count. Memory does not grow with the captions but for one bucket
(`zerovl.data.bucket_files`); on disk each takes 24 bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zerovl.data.bucket_files import BucketFiles
from zerovl.data.filtering.fates import REASONS, Fates
from zerovl.data.filtering.usable_rows import UsableRows
from zerovl.data.plain_captions import plain_captions


def leave_out_repeated(rows: UsableRows, fates: Fates, scratch: Path, most: int, share: float) -> None:
    """Leave out captions that occur more than `most` times, or in more than `share` of all; 0 is no bound.

    One that occurs once is never left out, however large a share of a small set it is.
    """
    starts = {table.samples.start: table.captions.start for table in rows.tables if len(table.samples)}
    counted = caption = 0
    with BucketFiles(scratch, "captions", rows.captions) as files:
        for numbers, batch in rows.batches(["captions"], "train"):
            if not len(numbers):
                continue
            caption = starts.get(int(numbers[0]), caption)
            lists = batch.column("captions")
            parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
            places = caption + np.arange(len(parents), dtype=np.int64)
            caption += len(parents)
            stays = fates.stays(numbers)[parents]
            files.add_strings(plain_captions(pc.list_flatten(lists).filter(pa.array(stays))), places[stays])
            counted += int(stays.sum())
        bounds = [(float(most), "max_caption_repeats")] * (most > 0)
        bounds += [(max(1.0, share * counted), "max_caption_share")] * (share > 0)
        bound, reason = min(bounds)
        for group, places in files.groups():
            times = np.bincount(group)[group]
            often = places[times > bound]
            fates.captions[often] = REASONS.index(reason)
            fates.found[often] = times[times > bound] / (counted if reason == "max_caption_share" else 1)
