"""What becomes of each sample and of each caption, on disk: 22 bytes a sample and 6 a caption, none of it in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zerovl.data.filtering.disk_arrays import disk_array
from zerovl.data.filtering.usable_rows import Numbers, UsableRows
from zerovl.text_format import plural

KEPT = ""
# Filters that look at all samples, in the order in which they are applied; a fate is a place in this list.
REASONS = (KEPT, "leaks", "duplicates", "semantic_duplicates", "max_caption_repeats", "max_caption_share", "agreement")
SAME_BYTES = 255  # in `apart`: the pictures have equal bytes

Mask = npt.NDArray[np.bool_]


class Fates:
    """Holds one fate a sample and one a caption, zero where it stays; files in `folder`, which the caller removes."""

    def __init__(self, rows: UsableRows, folder: Path) -> None:
        self.rows = rows
        self._folder = folder
        self.samples = self._array("samples", np.uint8, rows.samples)  # (N,)
        self.twins = self._array("twins", np.int64, rows.samples)  # (N,) number of the sample that stays instead
        self.apart = self._array("apart", np.uint8, rows.samples)  # (N,) bits of the hash that differ from the twin's
        self.cosines = self._array("cosines", np.float32, rows.samples)  # (N,) with the twin, by the filter's model
        self._image_ids = self._array("image-ids", np.int64, rows.samples)  # (N,)
        self.captions = self._array("captions", np.uint8, rows.captions)  # (C,)
        self.scored = self._array("scored", np.uint8, rows.captions)  # (C,) whether a model has scored a caption
        self.found = self._array("found", np.float32, rows.captions)  # (C,) what was counted or measured of a caption
        for numbers, batch in rows.batches(["image_id"]):
            self._image_ids[numbers] = batch.column("image_id").to_numpy(zero_copy_only=False)

    def _array(self, name: str, kind: Any, size: int) -> npt.NDArray[Any]:
        return disk_array(self._folder / name, kind, size)

    def leave_out(self, reason: str, numbers: Numbers, twins: Numbers, apart: npt.NDArray[np.uint8]) -> None:
        """Leave out samples for what they share with others; all three are of shape (n,)."""
        self.samples[numbers] = REASONS.index(reason)
        self.twins[numbers] = twins
        self.apart[numbers] = apart

    def leave_out_by_cosine(self, numbers: Numbers, twins: Numbers, cosines: npt.NDArray[np.float32]) -> None:
        """Leave out samples that a model sees as nearly the same as others; all three are of shape (n,)."""
        self.samples[numbers] = REASONS.index("semantic_duplicates")
        self.twins[numbers] = twins
        self.cosines[numbers] = cosines

    def stays(self, numbers: Numbers) -> Mask:
        """Return (n,) whether samples stay so far."""
        kept: Mask = self.samples[numbers] == 0
        return kept

    def describe(self, number: int) -> tuple[str, str]:
        """Return reason and detail of a sample that is left out."""
        twin, apart = int(self.twins[number]), int(self.apart[number])
        reason = REASONS[self.samples[number]]
        key = f"{self.rows.source_of(twin)}-{self._image_ids[twin]}"
        if reason == "semantic_duplicates":
            return reason, f"cosine {self.cosines[number]:.3f} with {key}"
        if apart == SAME_BYTES:
            return reason, f"same bytes as {key}"
        return reason, f"{plural(apart, 'bit')} of the perceptual hash from {key}"

    def describe_caption(self, number: int) -> tuple[str, str]:
        """Return reason and detail of a caption that is left out."""
        reason, found = REASONS[self.captions[number]], self.found[number]
        if reason == "agreement":
            return reason, f"cosine {found:.3f}"
        share = reason == "max_caption_share"
        return reason, f"{found:.2%} of the training captions" if share else f"{found:.0f} times"
