"""Which tars of a source are its train split and which its valid split, by the folders that they lie in.

CLIP_benchmark's sets for retrieval have `test/N.tar`; what tells them is a file `dataset_type.txt` that says
"retrieval". Source: `build_wds_dataset` in clip_benchmark/datasets/builder.py of github.com/LAION-AI/CLIP_benchmark.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from zerovl import s3
from zerovl.data.raw.layout import SPLITS, Source, is_remote
from zerovl.data.raw.records import is_debris, is_tar
from zerovl.data.raw.split_names import EVALUATED
from zerovl.data.raw.unread_files import unpacked_name

_TYPE_FILE, _RETRIEVAL = "dataset_type.txt", "retrieval"  # CLIP_benchmark's

_OWN = {"": "train", "train": "train", "valid": "valid"}  # folder, in small letters -> split
_OTHER_NAMES = tuple(name for names in EVALUATED.values() for name in names)  # of valid/, the likeliest first
_VALID_NAMES = ("valid", *_OTHER_NAMES)


@dataclass(frozen=True)
class TarsOfSplits:
    """Split -> paths or addresses of its tars, and what is to be said of how they were found, or ""."""

    tars: dict[str, list[str]]
    said: str = ""


def has_own_splits(folder: Path) -> bool:
    """Return whether a local folder has a tar where a split has it, whatever else lies there."""
    names = {**_OWN, **(dict.fromkeys(_OTHER_NAMES, "valid") if says_retrieval(str(folder)) else {})}
    return any(_by_folder(str(folder), _local_tars(str(folder), names)).values())


def has_evaluated_tars(folder: Path) -> bool:
    """Return whether a local folder has a tar in `test/`, `val/` or one of their other names."""
    return any(_by_folder(str(folder), _local_tars(str(folder), _OTHER_NAMES)).values())


def tars_of(source: Source) -> TarsOfSplits:
    """Return the tars of a source's splits: those in `train/` and `valid/`; tars of the folder itself are train.

    Valid are instead those of the folder that `evaluation_split` names. Where it is not set, `test/` of a set for
    retrieval on this machine is valid too; of a source without any other tar it is `test/`, or else `val/`. Tars that
    lie in a folder of such a name themselves are valid, unless the source's `splits` are train alone.
    """
    candidates = (*_OWN, *_OTHER_NAMES)
    listed = _local_tars(source.path, candidates) if source.listed is None else source.listed.states
    inside = _by_folder(source.path, listed)
    own: dict[str, list[str]] = {split: [] for split in SPLITS}
    for tar in listed:  # in this order, whichever of its folders has it
        folder = _folder(source.path, tar)
        if folder in _OWN:
            own[_OWN[folder]].append(tar)
    inside = {name: [tar for tar in tars if not _is_of_another(source, tar)] for name, tars in inside.items()}
    others = {name: inside[name] for name in _OTHER_NAMES if inside.get(name)}
    if source.evaluation_split == "auto":
        return _recognised(source, own, inside.get("", []), others)
    named = [name for name in EVALUATED[source.evaluation_split] if name in others]
    return _with_valid(own, others, named) if named else TarsOfSplits(own)


def _recognised(
    source: Source, own: dict[str, list[str]], loose: list[str], others: dict[str, list[str]]
) -> TarsOfSplits:
    """Return the tars of splits where it is not set what is evaluated on; `loose` lie in the source's own folder."""
    if says_retrieval(source.path) and "test" in others:
        return TarsOfSplits(own | {"valid": sorted([*own["valid"], *others["test"]])})
    if others and not any(own.values()):
        return _with_valid(own, others, list(others)[:1])
    place = s3.parse(source.path).path if is_remote(source.path) else source.path  # not the name of a bucket
    name = PurePosixPath(place).name.lower()
    if loose and own["train"] == loose and not own["valid"] and name in _VALID_NAMES and source.splits != ("train",):
        said = f"its tars are a valid split, since its folder is called {name}; splits: [train] takes them for training"
        return TarsOfSplits({"train": [], "valid": loose}, said)
    return TarsOfSplits(own)


def _with_valid(own: dict[str, list[str]], others: dict[str, list[str]], names: Sequence[str]) -> TarsOfSplits:
    tars = [tar for name in names for tar in others[name]]
    return TarsOfSplits(own | {"valid": tars}, f"its valid split are the tars of {' and '.join(names)}/")


def tars_elsewhere(source: Source, found: TarsOfSplits) -> list[str]:
    """Return the names of tars below a source's folder that no split has, and no source in there.

    Those of a set for retrieval are its own.
    """
    if says_retrieval(source.path):
        return []
    read = {tar for of_split in found.tars.values() for tar in of_split}
    below = tars_below(source.path) if source.listed is None else source.listed.states
    return _own_names(source, (tar for tar in below if tar not in read))


def compressed_tars(source: Source) -> list[str]:
    """Return the names of compressed tars below a source's folder, and no source in there."""
    below = set(_below(source.path)) if source.listed is None else source.listed.objects
    packed = (path for path in below if is_tar(unpacked_name(path)))
    return _own_names(source, (path for path in packed if unpacked_name(path) not in below))  # else it is a copy


def tars_below(folder: str) -> list[str]:
    """Return the paths of all tars below a local folder, sorted."""
    return sorted(filter(is_tar, _below(folder)))


def _below(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        yield from (f"{place}/{name}" for name in names)


def _own_names(source: Source, paths: Iterable[str]) -> list[str]:
    """Return paths relative to a source's folder, without debris and what is of sources in there, sorted."""
    of_others = tuple(f"{place}/" for place in source.sources_inside)
    names = (path[len(source.path) + 1 :] for path in paths if not path.startswith(of_others))
    return sorted(name for name in names if not any(is_debris(part) for part in name.split("/")))


def evaluation_hint(names: Iterable[str]) -> str:
    """Return how tars of those names become the valid split; "" where they lie in no folder that can be named so."""
    folders = {name.rpartition("/")[0].lower() for name in names}
    settings = [setting for setting, its in EVALUATED.items() if folders.intersection(its)]
    return f", or set its evaluation_split to {' or '.join(settings)}" if settings else ""


def says_retrieval(path: str) -> bool:
    """Return whether a folder of this machine is CLIP_benchmark's, of captions and not of classes."""
    if is_remote(path):
        return False
    try:
        return Path(path, _TYPE_FILE).read_text(encoding="utf-8").strip().lower() == _RETRIEVAL
    except (OSError, UnicodeDecodeError):
        return False


def _local_tars(path: str, folders: Collection[str]) -> list[str]:
    """Return the tars of a folder's sub-folders of these names, whatever their case; "" is the folder itself."""
    inner = [place for place in Path(path).iterdir() if place.name.lower() in folders and place.is_dir()]
    places = [*([Path(path)] if "" in folders else []), *inner]
    return [str(file) for file in sorted(file for place in places for file in place.glob("*.[tT][aA][rR]"))]


def _by_folder(path: str, tars: Iterable[str]) -> dict[str, list[str]]:
    """Return folder below `path`, in small letters -> its tars, in their order; "" is `path` itself."""
    found: dict[str, list[str]] = {}
    for tar in tars:
        folder = _folder(path, tar)
        if folder is not None:
            found.setdefault(folder, []).append(tar)
    return found


def _folder(path: str, tar: str) -> str | None:
    """Return the folder below `path` that a tar lies in, in small letters; None for debris."""
    folder, _, name = tar[len(path) + 1 :].rpartition("/")
    return None if not name or is_debris(name) else folder.lower()


def _is_of_another(source: Source, tar: str) -> bool:
    """Return whether a tar lies in the folder of a source that lies in this one."""
    return tar.rpartition("/")[0] in source.sources_inside
