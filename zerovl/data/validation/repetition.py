"""What repeats in the data, or nearly so: ids, pictures, and pictures of `valid` that are in `train` too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zerovl.data.bucket_files import BucketFiles
from zerovl.data.manifest import Manifest
from zerovl.data.validation.compared_columns import ComparedColumns
from zerovl.data.validation.repeats import EqualRows, Leaks, NearIndex, Repeats
from zerovl.data.validation.several_rows import SeveralRows, several_rows
from zerovl.data.validation.statistics import EXAMPLES, Equals, Scan
from zerovl.data.validation.tables import table_of, train_hashes
from zerovl.params import ValidateParams


@dataclass
class Repetition:
    """What is repeated, or nearly so, among the compared columns."""

    keys: Repeats
    image_ids: Repeats
    caption_ids: Repeats
    pictures: Repeats
    leaks: Leaks
    near: NearIndex
    several: list[SeveralRows]  # of the valid splits

    @classmethod
    def find(cls, manifest: Manifest, scan: Scan, compared: ComparedColumns, settings: ValidateParams) -> Repetition:
        """Read the bucket files that the scan has filled, and the training pictures' hashes once more."""
        trains = np.array([split == "train" for _, split in sorted(manifest.splits)], bool)
        leaks = Leaks(EXAMPLES)
        pictures = Repeats(EXAMPLES)
        equal_pictures = EqualRows(len(trains))
        for group, places in compared.pictures.groups():
            pictures.add(group, places)
            equal_pictures.add(group, places)
            leaks.add(group, places, trains[table_of(places)])
        _note_equals(manifest, scan, compared, equal_pictures)
        near = NearIndex(
            np.concatenate([np.empty(0, np.uint64), *scan.valid_hashes]),
            np.concatenate([np.empty(0, np.int64), *scan.valid_places]),
            settings.near_distance,
        )
        for hashes, places in train_hashes(manifest):
            near.look(hashes, places)
        return cls(
            _repeats(compared.keys),
            _repeats(compared.image_ids),
            _repeats(compared.caption_ids),
            pictures,
            leaks,
            near,
            several_rows(manifest, equal_pictures),
        )


def _note_equals(manifest: Manifest, scan: Scan, compared: ComparedColumns, pictures: EqualRows) -> None:
    """Give the training splits of the scan their equal captions and pictures."""
    captions = EqualRows(len(manifest.splits))
    for group, places in compared.captions.groups():
        captions.add(group, places)
    counted = (captions.values, captions.pairs, pictures.values, pictures.pairs)
    for table, (source, split) in enumerate(sorted(manifest.splits)):
        if split == "train":
            scan.splits[source, split].equals = Equals(*(int(each[table]) for each in counted))


def _repeats(files: BucketFiles) -> Repeats:
    repeats = Repeats(EXAMPLES)
    for group, places in files.groups():
        repeats.add(group, places)
    return repeats
