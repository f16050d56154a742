"""The original ZeroVL layout: `{train,valid}_anno.csv` with one row a caption, pictures in `{train,valid}/`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zerovl.data.pairs_csv import PairRow, read_rows
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.file_names import FileNames, Found, differing_notes, in_any_case
from zerovl.data.raw.layout import SPLITS, Source
from zerovl.data.raw.records import Picture, Reading, Record, caption_error, name_error, shown, whole_number
from zerovl.data.raw.unread_files import is_other_table, say_unread, unpacked_name
from zerovl.log import logger


class ZeroVLCsv:
    """The `Layout` of sources with a CSV a split."""

    name = "zerovl"
    signs = "train_anno.csv or valid_anno.csv"
    remote = False
    uses = frozenset[str]()

    def detect(self, folder: Path) -> bool:
        """Return whether there is a CSV of one of the splits."""
        return any(_annotation(folder, split).is_file() for split in SPLITS)

    def splits(self, source: Source) -> list[str]:
        """Return the splits that have a CSV; warns of others that are not read."""
        known = [_annotation(Path(source.path), split).name for split in SPLITS]
        there = sorted(path.name for path in Path(source.path).glob("[!.]*_anno.*"))
        unread = [name for name in there if unpacked_name(name) or is_other_table(name)]
        say_unread(source.name, unread, f"CSV: {', '.join(known)}")
        if others := [name for name in there if name.endswith("_anno.csv") and name not in known]:
            logger().warning(
                f"source {source.name!r}: {', '.join(others)} {'is' if len(others) == 1 else 'are'} not read, which "
                f"{' and '.join(known)} are; rename one that is to be read, and its folder"
            )
        return [split for split in SPLITS if _annotation(Path(source.path), split).is_file()]

    def read(self, source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles) -> Reading:
        """Group the rows of one CSV by image_id, in the order of their first row."""
        entries = _grouped(_annotation(Path(source.path), split), split, max_caption_bytes)
        notes: list[str] = []
        return Reading(_records(entries, FileNames(in_any_case(Path(source.path), split)), notes), len(entries), notes)


@dataclass(slots=True)
class _Sample:
    image: str
    image_id: int
    origin: str
    error: str | None
    captions: list[str] = field(default_factory=list)
    caption_ids: list[int] = field(default_factory=list)


def _annotation(folder: Path, split: str) -> Path:
    return in_any_case(folder, f"{split}_anno.csv")


def _grouped(path: Path, split: str, max_caption_bytes: int) -> list[_Sample | Record]:
    entries: list[_Sample | Record] = []
    samples: dict[int, _Sample] = {}
    caption_ids: set[int] = set()
    for row in read_rows(path, strict=False):
        origin = f"{path.name}:{row.lines}"
        image_id, caption_id = whole_number(row.image_id), whole_number(row.caption_id)
        if row.problem:
            entries.append(Record(origin, error=row.problem))
            continue
        if image_id is None or caption_id is None:
            entries.append(Record(origin, image_id, shown(row.caption), error=_id_error(row, image_id)))
            continue
        sample = samples.get(image_id)
        if sample is None:
            origin_of_sample = f"{split}/{row.image} ({origin})"
            sample = samples[image_id] = _Sample(row.image, image_id, origin_of_sample, name_error(row.image))
            entries.append(sample)
        problem = caption_error(row.caption, max_caption_bytes)
        if row.image != sample.image:
            problem = f"image_id {image_id} already belongs to {sample.image!r}, here it has {row.image[:200]!r}"
        elif caption_id in caption_ids:
            problem = f"caption_id {caption_id} was used before"
        if problem:
            entries.append(Record(origin, image_id, shown(row.caption), (caption_id,), error=problem))
            continue
        caption_ids.add(caption_id)
        sample.captions.append(row.caption.strip())
        sample.caption_ids.append(caption_id)
    return entries


def _id_error(row: PairRow, image_id: int | None) -> str:
    column, value = ("image_id", row.image_id) if image_id is None else ("caption_id", row.caption_id)
    return f"{column} {value[:50]!r} is not a whole number"


def _records(entries: list[_Sample | Record], pictures: FileNames, notes: list[str]) -> Iterator[Record]:
    """Give the records; how many files have another name than their row joins the notes at the end."""
    differing = Counter[str]()
    for entry in entries:
        if isinstance(entry, Record):
            yield entry
        elif entry.captions:  # else each of its captions has a row of its own that says why
            found = pictures.find(entry.image) if entry.error is None else Found("", problem=entry.error)
            differing[found.differs] += 1
            yield Record(
                entry.origin,
                entry.image_id,
                tuple(entry.captions),
                tuple(entry.caption_ids),
                None if found.problem else Picture(found.path),
                found.problem,
            )
    notes += differing_notes(differing)
