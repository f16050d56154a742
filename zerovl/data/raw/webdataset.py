"""WebDataset shards as img2dataset writes them: `.jpg`, `.txt` and `.json` members that share a key.

CLIP_benchmark's sets for retrieval lie so too, as `test/N.tar` with a caption a line in each `.txt`
(`zerovl.data.raw.tar_splits`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from zerovl.data.raw import s3_source, tar_splits
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.layout import SPLITS, Source, is_remote
from zerovl.data.raw.records import Reading, Record, caption_error, shown, stable_id, whole_number
from zerovl.data.raw.tar_captions import (
    ReadCaptions,
    ReadText,
    WholeTexts,
    caption_a_line,
    caption_reader,
    one_caption,
)
from zerovl.data.raw.tar_ids import SECOND_RUN, ImageIds, Recent
from zerovl.data.raw.tar_lacks import LackingTars
from zerovl.data.raw.tar_samples import TarSample, read_samples
from zerovl.data.raw.unread_files import say_unread
from zerovl.data.stated_samples import Stated, stated_beside
from zerovl.log import logger
from zerovl.text_format import plural

_SHOWN = 3  # names of tars in a line


class WebDataset:
    """The `Layout` of sources that are tars, on this machine or on S3."""

    name = "webdataset"
    signs = "*.tar, train/*.tar or valid/*.tar"
    remote = True
    uses = frozenset({"evaluation_split", "txt_captions", "tars", "json_caption"})

    def detect(self, folder: Path) -> bool:
        """Return whether there is a tar where one of the splits would have it."""
        return tar_splits.has_own_splits(folder)

    def splits(self, source: Source) -> list[str]:
        """Return the splits that have tars; warns of tars that lie where none has them."""
        found = tar_splits.tars_of(source)
        if found.said:
            logger().info(f"source {source.name!r}: {found.said}")
        if names := tar_splits.tars_elsewhere(source, found):
            logger().warning(
                f"source {source.name!r}: {plural(len(names), 'tar')} in other folders than train/ and valid/ "
                f"{'is' if len(names) == 1 else 'are'} not read: {', '.join(names[:_SHOWN])}"
                f"{', ...' if len(names) > _SHOWN else ''}; move them there, or name their folders in data.sources"
                f"{tar_splits.evaluation_hint(names)}"
            )
        say_unread(source.name, tar_splits.compressed_tars(source), ".tar")
        return [split for split in SPLITS if found.tars[split]]

    def read(self, source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles) -> Reading:
        """Give the samples of one split's tars, in the order of their names."""
        records = tar_records(source, split, max_caption_bytes)
        tars = enumerate(split_tars(source, split))
        names = ((tar, f"{source.name}-{split}-{number}.tar") for number, tar in tars)
        opened = (record for tar, name in names for record in opened_records(records, source, *tar, fetched, name))
        notes: list[str] = []
        return Reading(_noting(opened, records, notes), notes=notes, without_ids=True)


def split_tars(source: Source, split: str) -> list[tuple[str, str]]:
    """Return (name for messages, path or address) of each tar of a split, in their order."""
    tars = tar_splits.tars_of(source).tars[split]
    return [(tar if is_remote(tar) else str(Path(tar).relative_to(source.path)), tar) for tar in tars]


def tar_records(source: Source, split: str, max_caption_bytes: int) -> TarRecords:
    """Return what makes records of the samples of a split's tars."""
    first_id = SECOND_RUN if split == "valid" and tar_splits.tars_of(source).tars["train"] else 0
    return TarRecords(first_id, max_caption_bytes, source.json_caption, _text_reader(source))


def _noting(given: Iterator[Record], records: TarRecords, notes: list[str]) -> Iterator[Record]:
    """Give the records, then add to `notes` what is to be said of all of them."""
    yield from given
    notes += records.notes()


def _text_reader(source: Source) -> ReadText:
    """Return what makes captions of a `.txt`; where nothing says what its lines are, one that counts them."""
    if source.txt_captions == "auto":
        return caption_a_line if tar_splits.says_retrieval(source.path) else WholeTexts()
    return caption_a_line if source.txt_captions == "lines" else one_caption


def opened_records(
    records: TarRecords,
    source: Source,
    name: str,
    path: str,
    fetched: FetchedFiles,
    scratch: str,
    known: int | None = None,
) -> Iterator[Record]:
    """Give the records of a tar; one on S3 is fetched for it, as the file `scratch`.

    A damaged tar is counted for all samples that it should have: `known`, else what a file beside it says, which a
    whole tar is compared with too.
    """
    opened: AbstractContextManager[str] = nullcontext(path)
    if is_remote(path):
        opened = fetched.fetched(scratch, lambda place: s3_source.fetch(path, place))
    with opened as local:
        samples = read_samples(local, name, lambda: stated_samples(source, path), known)
        yield from records.of(name, samples)


def stated_samples(source: Source, tar: str) -> Stated | None:
    """Return how many samples a tar of a source has by a file beside it; S3 is not asked where its listing has none."""
    if source.listed is not None and not source.listed.is_stated(tar):
        return None
    return stated_beside(tar)


class TarRecords:
    """Makes records of the samples of one split's tars, in their order; `ImageIds` says what their ids are."""

    def __init__(self, first_id: int, max_caption_bytes: int, json_caption: str, read_text: ReadText) -> None:
        self._image_ids = ImageIds(first_id)
        self._caption_ids = Recent()
        self._lacking = LackingTars()
        self._max_caption_bytes = max_caption_bytes
        self._read_text = read_text
        self._read_captions = caption_reader(json_caption, read_text)

    def of(self, name: str, samples: Iterable[TarSample]) -> Iterator[Record]:
        """Give the records of the next tar."""
        self._image_ids.next_tar(name)
        for rows in _rows_of_a_picture(self._lacking.watched(name, samples)):
            yield from _records(rows, self._image_ids, self._caption_ids, self._max_caption_bytes, self._read_captions)

    def notes(self) -> list[str]:
        """Return what is to be said of all records that were given: of tars that lack samples, and of captions."""
        texts = self._read_text.notes() if isinstance(self._read_text, WholeTexts) else []
        return [*self._lacking.notes(), *texts]


def _rows_of_a_picture(samples: Iterable[TarSample]) -> Iterator[list[TarSample]]:
    """Give each sample by itself, and those in a row together whose `image_id` and bytes are the same."""
    rows: list[TarSample] = []
    for sample in samples:
        if rows and not _has_picture_of(sample, rows[0]):
            yield rows
            rows = []
        rows.append(sample)
    if rows:
        yield rows


def _has_picture_of(sample: TarSample, other: TarSample) -> bool:
    if sample.picture is None or other.picture is None or sample.picture.size != other.picture.size:
        return False
    given = [whole_number(values.get("image_id")) for values, error in map(_description, (sample, other)) if not error]
    if len(given) < 2 or given[0] is None or given[0] != given[1]:
        return False
    contents = []
    for picture in (sample.picture, other.picture):
        with open(picture.path, "rb") as file:
            file.seek(picture.offset)
            contents.append(file.read(picture.size or 0))
    return contents[0] == contents[1]


def _records(
    rows: Sequence[TarSample],
    image_ids: ImageIds,
    caption_ids: Recent,
    max_caption_bytes: int,
    read_captions: ReadCaptions,
) -> Iterator[Record]:
    """Give the record of a picture, whose captions its rows have, and one for each of them that cannot be used."""
    first = rows[0]
    if not first.key:
        yield Record(first.origin, error=first.problem)
        return
    image_id = image_ids.of(_description(first)[0], first.key)
    captions: list[tuple[str, str]] = []  # the row's origin, and one of its captions
    given_ids: list[object] = []
    for row in rows:
        values, error = _description(row)
        texts: list[str] = []
        if error is None:
            texts, error = read_captions(values, row.text)
        if error is None and row.picture is None:
            error = "no picture with this key"
        if error is None and image_ids.was_used(image_id):
            error = f"image_id {image_id} was used before"
        if error:
            yield Record(row.origin, image_id, tuple(text for one in texts for text in shown(one)), error=error)
            continue
        captions += [(row.origin, text) for text in texts]
        given_ids += ids if isinstance(ids := values.get("caption_ids"), list) else []
    if not captions:
        return
    image_ids.use(image_id, first.key)
    good: list[tuple[int, str]] = []
    broken: list[Record] = []
    for caption_id, (origin, text) in zip(_caption_ids(given_ids, image_id, len(captions)), captions, strict=True):
        problem = caption_error(text, max_caption_bytes)
        if caption_id in caption_ids:
            problem = f"caption_id {caption_id} was used before"
        if problem:
            broken.append(Record(origin, image_id, shown(text), (caption_id,), error=problem))
            continue
        caption_ids.add(caption_id)
        good.append((caption_id, text.strip()))
    if good:
        yield Record(
            first.origin,
            image_id,
            tuple(text for _, text in good),
            tuple(number for number, _ in good),
            first.picture,
        )
    yield from broken


def _description(sample: TarSample) -> tuple[dict[str, object], str | None]:
    """(the sample's JSON, why the sample is refused or None)."""
    if sample.description is None:
        return {}, sample.problem
    try:
        values = json.loads(sample.description)
    except (ValueError, RecursionError) as error:
        return {}, sample.problem or f"its .json is not valid JSON ({type(error).__name__})"
    if not isinstance(values, dict):
        return {}, sample.problem or "its .json is not a mapping"
    return values, sample.problem


def _caption_ids(given: list[object], image_id: int, count: int) -> list[int]:
    """`caption_ids` of the JSON if they fit; else the image's own id for one caption, hashes for several."""
    numbers = [whole_number(one) for one in given]
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers) == count:
        return known
    return [image_id] if count == 1 else [stable_id(f"{image_id}/{number}") for number in range(count)]
