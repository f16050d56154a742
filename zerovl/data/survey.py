"""Look over the data before settings are chosen for them: how many pairs, how large pictures, what captions."""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from PIL import Image, UnidentifiedImageError

from zerovl.data.filtering.drawn_sources import drawn_sources
from zerovl.data.manifest import Manifest
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.layout import Source, is_remote
from zerovl.data.raw.records import Picture
from zerovl.data.raw.sources import resolve, why_without
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.parquet_files import open_parquet
from zerovl.workspace import Workspace

_SIZED = 100  # raw pictures a split that are opened, and each so many-th after them
_CAPTIONS = 100_000  # of which words are counted
_USUAL_SIDE = 224  # pixels, where no picture says otherwise


@dataclass(frozen=True)
class Survey:
    """What there is to train on."""

    origin: str  # where it was looked up
    train: dict[str, int]  # pairs by source; sources without any are left out
    valid: dict[str, int]
    words: int  # distinct ones of the training captions
    long_caption: int  # words of a caption that 95 of 100 do not exceed
    side: int  # median of the pictures' shorter sides, pixels

    @property
    def pairs(self) -> int:
        """Training pairs over all sources."""
        return sum(self.train.values())


def survey(params: Params, workspace: Workspace) -> Survey:
    """Read the manifest where it is of the sources that `params` name, else count the raw sources.

    Raises `ZeroVLError` where there are no sources, no training pairs, or where counting would mean to fetch them.
    """
    sources = resolve(params.data, workspace.root)
    prepared = workspace.manifest_file.is_file()
    manifest = Manifest.load(workspace.manifest) if prepared else None
    if manifest is not None and {name for name, _ in manifest.splits} == {source.name for source in sources}:
        found = _of_manifest(manifest)
    else:
        found = _of_raw(sources, params.prepare.max_caption_bytes)
    if not found.train:
        lines = "".join(f"\n  {why_without(source, 'train')}" for source in sources)
        raise ZeroVLError(f"{found.origin}: no source has training pairs; add a train split (data/README.md){lines}")
    return found


@dataclass
class _Tally:
    """Captions and sides of the training pictures, counted one by one."""

    words: set[str] = field(default_factory=set)
    lengths: Counter[int] = field(default_factory=Counter)
    sides: list[int] = field(default_factory=list)

    def add_captions(self, captions: Iterable[str]) -> None:
        for caption in captions:
            if self.lengths.total() < _CAPTIONS:
                words = caption.lower().split()
                self.words.update(words)
                self.lengths[len(words)] += 1

    def survey(self, origin: str, train: dict[str, int], valid: dict[str, int]) -> Survey:
        side = int(median(self.sides)) if self.sides else _USUAL_SIDE
        return Survey(origin, train, valid, len(self.words), _quantile(self.lengths, 0.95), side)


def _quantile(counts: Counter[int], share: float) -> int:
    below = 0
    for value in sorted(counts):
        below += counts[value]
        if below >= share * counts.total():
            return value
    return 0


def _of_manifest(manifest: Manifest) -> Survey:
    tally = _Tally()
    for source in manifest.sources("train"):
        with open_parquet(manifest.table_path(source, "train")) as file:
            for batch in file.iter_batches(columns=["captions", "width", "height", "error"]):
                for row in batch.to_pylist():
                    if row["error"] is None:
                        tally.add_captions(row["captions"])
                        tally.sides.append(min(row["width"], row["height"]))
                if tally.lengths.total() >= _CAPTIONS:
                    break
    drawn = drawn_sources(manifest.folder)  # of train, so that raw sources and their manifest say the same
    valid = {source: manifest.pairs(source, "valid") for source in manifest.sources("valid") if source not in drawn}
    train = {source: pairs + drawn.get(source, 0) for source, pairs in manifest.training_sizes().items()}
    return tally.survey(str(manifest.folder), train, valid)


def _of_raw(sources: list[Source], max_caption_bytes: int) -> Survey:
    tally, sizes = _Tally(), {"train": dict[str, int](), "valid": dict[str, int]()}
    for source in sources:
        if is_remote(source.path):
            raise ZeroVLError(
                f"source {source.name!r}: {source.path} would have to be fetched to be counted; write params.yaml with "
                "`zerovl recipe demo` and the same values first, run `zerovl prepare`, then this command again: it "
                "reads the manifest"
            )
        for split in source.splits:
            if pairs := _count(source, split, max_caption_bytes, tally):
                sizes[split][source.name] = pairs
    return tally.survey("the raw sources, not prepared yet", sizes["train"], sizes["valid"])


def _count(source: Source, split: str, max_caption_bytes: int, tally: _Tally) -> int:
    """Count the usable records of a split; of a training split the tally takes captions and some pictures' sides."""
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for record in source.layout.read(source, split, max_caption_bytes, FetchedFiles(Path(folder))).records:
            if record.error is not None or record.picture is None:
                continue
            count += 1
            if split == "train":
                tally.add_captions(record.captions)
                if count <= _SIZED or count % _SIZED == 0:
                    tally.sides += _shorter_side(record.picture)
    return count


def _shorter_side(picture: Picture) -> Iterator[int]:
    """Give the side from the picture's header; nothing for one that is broken, which `prepare` quarantines."""
    try:
        with open(picture.path, "rb") as file:
            file.seek(picture.offset)
            with Image.open(io.BytesIO(file.read(-1 if picture.size is None else picture.size))) as image:
                yield min(image.size)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return
