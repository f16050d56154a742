"""Tars of pictures with the number of their class, as CLIP_benchmark writes them: `KEY.jpg` and `KEY.cls`.

Layout: github.com/LAION-AI/CLIP_benchmark, section "Load datasets" of its README.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from zerovl.data.raw.records import PICTURES, Picture
from zerovl.data.raw.tar_members import DamagedTarError, whole_members
from zerovl.errors import ZeroVLError

_LABEL = "cls"
_LONGEST_LABEL = 20  # bytes of a .cls
_FIX = "get the file again"


@dataclass(frozen=True, slots=True)
class LabelledSample:
    """A picture in a tar with the number of its class."""

    name: str  # "test/0.tar:s0000017"
    picture: Picture
    label: int


def read_tars(folder: Path) -> Iterator[LabelledSample]:
    """Give the samples of a folder's tars, by number where their names are numbers; nothing where there are none.

    Raises:
        ZeroVLError: a tar is missing by `nshards.txt`, damaged or cut off, or a sample lacks picture or class.
    """
    tars = sorted(folder.glob("*.tar"), key=lambda path: (int(path.stem) if path.stem.isdigit() else 0, path.name))
    count = folder / "nshards.txt"
    said = count.read_text(encoding="utf-8", errors="replace").strip() if count.is_file() else str(len(tars))
    if said != str(len(tars)):
        raise ZeroVLError(f"{count}: says {said!r} tars, found {len(tars)}; {_FIX} that is missing")
    for path in tars:
        try:
            yield from _read(path)
        except DamagedTarError as error:
            raise ZeroVLError(f"{path}: {error}; {_FIX}") from None
        except OSError as error:
            raise ZeroVLError(f"{path}: cannot be read ({error.strerror or error}); {_FIX}") from None


def _read(path: Path) -> Iterator[LabelledSample]:
    pictures: dict[str, Picture] = {}
    labels: dict[str, int] = {}
    with open(path, "rb") as file, open(path, "rb") as contents:
        for member in whole_members(file):
            folder, _, base = member.name.rpartition("/")
            stem, _, extension = base.partition(".")
            key, kind = f"{folder}/{stem}".lstrip("/"), extension.lower()
            if not member.isreg() or (kind not in PICTURES and kind != _LABEL):
                continue
            if kind == _LABEL:
                labels[key] = _label(path, contents, member)
            elif key in pictures:
                raise ZeroVLError(f"{path}: two pictures with the key {key!r}; {_FIX}")
            else:
                pictures[key] = Picture(str(path), member.offset_data, member.size)
    if lacking := sorted(pictures.keys() ^ labels.keys()):
        what = "class" if lacking[0] in pictures else "picture"
        raise ZeroVLError(f"{path}: sample {lacking[0]!r} has no {what}; each has a picture and a .{_LABEL}")
    for key, picture in pictures.items():
        yield LabelledSample(f"{path.parent.name}/{path.name}:{key}", picture, labels[key])


def _label(path: Path, contents: IO[bytes], member: tarfile.TarInfo) -> int:
    contents.seek(member.offset_data)
    text = contents.read(min(member.size, _LONGEST_LABEL)).decode("ascii", "replace").strip()
    if not text.isdigit():
        raise ZeroVLError(f"{path}: {member.name[:200]!r} holds {text!r}, expected the number of a class")
    return int(text)
