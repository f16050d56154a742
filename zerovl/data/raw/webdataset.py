"""WebDataset shards as img2dataset writes them: `.jpg`, `.txt` and `.json` members that share a key.

CLIP_benchmark's sets for retrieval lie so too, as `test/N.tar` with a caption a line in each `.txt`; what tells them is
a file `dataset_type.txt` that says "retrieval". Source: `build_wds_dataset` in clip_benchmark/datasets/builder.py of
github.com/LAION-AI/CLIP_benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from zerovl.data.raw import s3_source
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.layout import SPLITS, Source, is_remote
from zerovl.data.raw.records import Reading, Record, caption_error, is_debris, shown, stable_id, whole_number
from zerovl.data.raw.tar_captions import ReadCaptions, caption_a_line, caption_reader, one_caption
from zerovl.data.raw.tar_ids import SECOND_RUN, ImageIds, Recent
from zerovl.data.raw.tar_samples import TarSample, read_samples

_TYPE_FILE, _RETRIEVAL = "dataset_type.txt", "retrieval"  # CLIP_benchmark's

_EVALUATED = ("test", "val")  # splits that `evaluation_split` may name

_Opened = AbstractContextManager[str]


class WebDataset:
    """The `Layout` of sources that are tars, on this machine or on S3."""

    name = "webdataset"
    signs = "*.tar, train/*.tar or valid/*.tar"
    remote = True
    uses = frozenset({"evaluation_split", "txt_captions", "json_caption"})

    def detect(self, folder: Path) -> bool:
        """Return whether there is a tar where one of the splits would have it."""
        return any(any(_tars(str(folder), split).values()) for split in _EVALUATED)

    def splits(self, source: Source) -> list[str]:
        """Return the splits that have tars."""
        tars = _tars(source.path, source.evaluation_split)
        return [split for split in SPLITS if tars[split]]

    def read(self, source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles) -> Reading:
        """Give the samples of one split's tars, in the order of their names."""
        tars = _tars(source.path, source.evaluation_split)
        first_id = SECOND_RUN if split == "valid" and tars["train"] else 0
        opened = _opened(source, split, tars[split], fetched)
        return Reading(_read_tars(opened, first_id, max_caption_bytes, _caption_reader(source)))


def _tars(path: str, evaluation_split: str) -> dict[str, list[str]]:
    """Return split -> its tars: those in `train/` and `valid/`; tars of the folder itself are train.

    Of a set for retrieval those of its `evaluation_split` are valid.
    """
    remote = is_remote(path)
    splits = {"": "train", "train": "train", "valid": "valid"}
    if not remote and _says_retrieval(path):
        splits[evaluation_split] = "valid"
    local = [] if remote else [file for folder in splits for file in Path(path, folder).glob("*.tar")]
    everything = s3_source.list_tars(path) if remote else [str(file) for file in sorted(local)]
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for tar in everything:
        folder, _, rest = tar[len(path) + 1 :].rpartition("/")
        if rest and folder in splits and not is_debris(rest):
            found[splits[folder]].append(tar)
    return found


def _says_retrieval(path: str) -> bool:
    """Whether a folder is CLIP_benchmark's, of captions and not of classes."""
    try:
        return Path(path, _TYPE_FILE).read_text(encoding="utf-8").strip().lower() == _RETRIEVAL
    except (OSError, UnicodeDecodeError):
        return False


def _caption_reader(source: Source) -> ReadCaptions:
    """Return what finds a sample's captions: under the key that the source names, else in the usual places."""
    lines = source.txt_captions == "lines"
    if source.txt_captions == "auto":
        lines = not is_remote(source.path) and _says_retrieval(source.path)
    return caption_reader(source.json_caption, caption_a_line if lines else one_caption)


def _opened(source: Source, split: str, tars: list[str], fetched: FetchedFiles) -> Iterator[tuple[str, _Opened]]:
    """Give (name for messages, context that gives a local path) of each tar."""
    for number, tar in enumerate(tars):
        if is_remote(tar):
            yield tar, fetched.fetched(f"{source.name}-{split}-{number}.tar", _fetcher(tar))
        else:
            yield str(Path(tar).relative_to(source.path)), nullcontext(tar)


def _fetcher(uri: str) -> Callable[[Path], None]:
    return lambda path: s3_source.fetch(uri, path)


def _read_tars(
    tars: Iterable[tuple[str, _Opened]], first_id: int, max_caption_bytes: int, read_captions: ReadCaptions
) -> Iterator[Record]:
    """Give the records of tars, in their order; `ImageIds` says what their ids are."""
    image_ids = ImageIds(first_id)
    caption_ids = Recent()
    for name, opened in tars:
        image_ids.next_tar(name)
        with opened as path:
            for sample in read_samples(path, name):
                yield from _records(sample, image_ids, caption_ids, max_caption_bytes, read_captions)


def _records(
    sample: TarSample,
    image_ids: ImageIds,
    caption_ids: Recent,
    max_caption_bytes: int,
    read_captions: ReadCaptions,
) -> Iterator[Record]:
    if not sample.key:
        yield Record(sample.origin, error=sample.problem)
        return
    values, error = _description(sample)
    image_id = image_ids.of(values, sample.key)
    captions: list[str] = []
    if error is None:
        captions, error = read_captions(values, sample.text)
    if error is None and sample.picture is None:
        error = "no picture with this key"
    if error is None and image_ids.was_used(image_id):
        error = f"image_id {image_id} was used before"
    if error:
        yield Record(sample.origin, image_id, tuple(text for one in captions for text in shown(one)), error=error)
        return
    image_ids.use(image_id)
    good: list[tuple[int, str]] = []
    broken: list[Record] = []
    for caption_id, text in zip(_caption_ids(values, image_id, len(captions)), captions, strict=True):
        problem = caption_error(text, max_caption_bytes)
        if caption_id in caption_ids:
            problem = f"caption_id {caption_id} was used before"
        if problem:
            broken.append(Record(sample.origin, image_id, shown(text), (caption_id,), error=problem))
            continue
        caption_ids.add(caption_id)
        good.append((caption_id, text.strip()))
    if good:
        yield Record(
            sample.origin,
            image_id,
            tuple(text for _, text in good),
            tuple(number for number, _ in good),
            sample.picture,
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


def _caption_ids(values: dict[str, object], image_id: int, count: int) -> list[int]:
    """`caption_ids` of the JSON if they fit; else the image's own id for one caption, hashes for several."""
    given = values.get("caption_ids")
    numbers = [whole_number(one) for one in given] if isinstance(given, list) else []
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers) == count:
        return known
    return [image_id] if count == 1 else [stable_id(f"{image_id}/{number}") for number in range(count)]
