"""Which sources there are, how each is laid out, and their records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zerovl.data.raw import csv_pairs, karpathy, s3_source, webdataset
from zerovl.data.raw.fetched_files import Spool
from zerovl.data.raw.records import Reading
from zerovl.errors import ZeroVLError
from zerovl.params import DataParams, SourceParams

SPLITS = ("train", "valid")
_MAX_NAME = 64  # key and ending must fit into the 100 bytes of a USTAR name
Layout = Literal["zerovl", "karpathy", "webdataset"]


@dataclass(frozen=True)
class Source:
    """A source whose layout is known; `splits` are those that it has and that are wanted."""

    name: str
    path: str  # folder, or s3://bucket/prefix
    layout: Layout
    splits: tuple[str, ...]
    evaluation_split: str
    tars: dict[str, list[str]]  # split -> paths or URIs, webdataset only


def resolve(data: DataParams, root: Path) -> list[Source]:
    """The sources of `data.sources`, else every sub-folder of `data.raw`; paths are relative to `root`.

    Raises `ZeroVLError` where there is none, or one has no recognised layout or no wanted split.
    """
    wanted = data.sources or _folders(root / data.raw, data.raw)
    return [_resolve(settings, root) for settings in sorted(wanted, key=lambda settings: settings.name)]


def read(source: Source, split: str, max_caption_bytes: int, spool: Spool) -> Reading:
    """The records of one split; fetched tars go through `spool`."""
    if source.layout == "zerovl":
        return csv_pairs.read(Path(source.path), split, max_caption_bytes)
    if source.layout == "karpathy":
        return karpathy.read(Path(source.path), split, source.evaluation_split, max_caption_bytes)
    first_id = webdataset.SECOND_RUN if split == "valid" and source.tars["train"] else 0
    return Reading(webdataset.read(_opened(source, split, spool), first_id, max_caption_bytes))


def _opened(source: Source, split: str, spool: Spool) -> Iterator[tuple[str, webdataset.Opened]]:
    for number, tar in enumerate(source.tars[split]):
        if tar.startswith("s3://"):
            yield tar, spool.fetched(f"{source.name}-{split}-{number}.tar", _fetcher(tar))
        else:
            yield str(Path(tar).relative_to(source.path)), nullcontext(tar)


def _fetcher(uri: str) -> Callable[[Path], None]:
    return lambda path: s3_source.fetch(uri, path)


def _folders(raw: Path, setting: str) -> list[SourceParams]:
    if not raw.is_dir():
        raise ZeroVLError(f"data.raw: {setting}: no such folder; put sources there (data/README.md) or change data.raw")
    names = sorted(path.name for path in raw.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise ZeroVLError(f"data.raw: {setting} has no sub-folder; each source is one (layouts: data/README.md)")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ZeroVLError(
                f"data.raw: source folder {str(raw / name)!r}: a name may have letters, digits, '-' and '_' only; "
                "rename it, or name the source in data.sources"
            )
    return [SourceParams(name=name, path=f"{setting}/{name}") for name in names]


def _resolve(settings: SourceParams, root: Path) -> Source:
    if len(settings.name) > _MAX_NAME:
        raise ZeroVLError(f"source {settings.name!r}: name longer than {_MAX_NAME} characters; shorten it")
    remote = settings.path.startswith("s3://")
    path = settings.path.rstrip("/") if remote else str(root / settings.path)
    if not remote and not Path(path).is_dir():
        raise ZeroVLError(f"source {settings.name!r}: {settings.path}: no such folder; correct its path")
    if remote and settings.layout not in ("auto", "webdataset"):
        raise ZeroVLError(
            f"source {settings.name!r}: layout {settings.layout} cannot be read from s3://; "
            "only webdataset can, or fetch it first: dvc import-url"
        )
    shards = _tars(path)
    layout = _layout(settings, path, shards)
    present = {
        "zerovl": lambda: [split for split in SPLITS if csv_pairs.annotation(Path(path), split).is_file()],
        "karpathy": lambda: karpathy.splits(Path(path), settings.evaluation_split),
        "webdataset": lambda: [split for split in SPLITS if shards[split]],
    }[layout]()
    splits = tuple(split for split in present if split in settings.splits)
    if not splits:
        found = f"has {', '.join(present)}" if present else "is empty"
        raise ZeroVLError(
            f"source {settings.name!r}: {settings.path} ({layout} layout) {found}, wanted: "
            f"{', '.join(settings.splits) or 'no split'}; add its data, change its splits, or take the source out"
        )
    return Source(settings.name, path, layout, splits, settings.evaluation_split, shards)


def _layout(settings: SourceParams, path: str, shards: dict[str, list[str]]) -> Layout:
    if settings.layout != "auto":
        return settings.layout
    if path.startswith("s3://"):
        return "webdataset"
    found: list[Layout] = []
    if any(csv_pairs.annotation(Path(path), split).is_file() for split in SPLITS):
        found.append("zerovl")
    if next(Path(path).glob("dataset*.json"), None):
        found.append("karpathy")
    if any(shards.values()):
        found.append("webdataset")
    if len(found) == 1:
        return found[0]
    if found:
        raise ZeroVLError(
            f"source {settings.name!r}: {settings.path} fits the layouts {' and '.join(found)}; "
            "name it in data.sources with its layout"
        )
    empty = next(Path(path).iterdir(), None) is None
    raise ZeroVLError(
        f"source {settings.name!r}: {settings.path} {'is empty' if empty else 'has no known layout'}; looked for "
        "train_anno.csv or valid_anno.csv (zerovl), dataset*.json (karpathy), *.tar, train/*.tar or valid/*.tar "
        "(webdataset); data/README.md shows each"
    )


def _tars(path: str) -> dict[str, list[str]]:
    """split -> its tars: those in `train/` and `valid/`; tars of the folder itself are train."""
    remote = path.startswith("s3://")
    local = [] if remote else [file for folder in ("", *SPLITS) for file in Path(path, folder).glob("*.tar")]
    everything = s3_source.list_tars(path) if remote else [str(file) for file in sorted(local)]
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for tar in everything:
        folder, _, rest = tar[len(path) + 1 :].rpartition("/")
        if rest and folder in ("", *SPLITS):
            found[folder or "train"].append(tar)
    return found
