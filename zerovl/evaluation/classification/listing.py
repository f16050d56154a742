"""Say cheaply whether a set with classes is the one of before: by names and sizes, not by what pictures hold.

DVC cannot take a list of settings for its dependencies, so `zerovl code` compares this digest for the stage `evaluate`.
A picture replaced by one of the same size is seen by the digest of an evaluation alone, which reads them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zerovl.data.raw.records import is_debris
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.sets import read_set
from zerovl.files import sha256_file, sha256_json
from zerovl.params import ClassificationParams

_READ = (".txt", ".csv")  # files of names, classes and templates


def listing_digest(its: ClassificationParams) -> str:
    """Return a digest of the names and sizes of a set's files, and of the content of its texts.

    Raises:
        ZeroVLError: the set is not there.
    """
    given = [Path(its.classnames)] if its.classnames else []
    root, files = _of_csv(its) if its.csv else _of_tree(Path(its.folder or its.shards))
    rows = sorted((path.relative_to(root).as_posix(), _state(path)) for path in files)
    return sha256_json([rows, [_state(path) for path in given]])


def _of_csv(its: ClassificationParams) -> tuple[Path, Iterator[Path]]:
    path = Path(its.csv)
    pictures = {Path(labelled.picture.path) for labelled in read_set(its).pictures}
    return path.parent, iter({path, *pictures})


def _of_tree(root: Path) -> tuple[Path, Iterator[Path]]:
    if not root.is_dir():
        raise ZeroVLError(f"evaluate.classification: {root}: no such folder; get the set, or take it out of the list")
    return root, (
        path for path in root.rglob("*") if not any(map(is_debris, path.relative_to(root).parts)) and path.is_file()
    )


def _state(path: Path) -> str | int:
    """Digest of a text, size of another file; -1 where there is none."""
    try:
        return sha256_file(path) if path.suffix.lower() in _READ else path.stat().st_size
    except OSError:
        return -1
