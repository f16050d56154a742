"""The columns of the manifest whose values the rules compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zerovl.data.bucket_files import BucketFiles
from zerovl.data.manifest import Manifest


@dataclass(frozen=True)
class ComparedColumns:
    """The columns whose values are compared, where the scan leaves them."""

    keys: BucketFiles
    image_ids: BucketFiles
    caption_ids: BucketFiles
    pictures: BucketFiles
    captions: BucketFiles  # of training pairs


def open_compared(folder: Path, manifest: Manifest) -> ComparedColumns:
    """Open the bucket files of all compared columns; the caller closes them and removes the folder."""
    pairs = sum(info.pairs for info in manifest.splits.values())
    captions = sum(info.captions for info in manifest.splits.values())
    return ComparedColumns(
        keys=BucketFiles(folder, "keys", pairs),
        image_ids=BucketFiles(folder, "image-ids", pairs),
        caption_ids=BucketFiles(folder, "caption-ids", captions),
        pictures=BucketFiles(folder, "pictures", pairs),
        captions=BucketFiles(folder, "captions", captions),
    )
