"""Keys of a tar's members: which members are a sample, and which keys go along with the sample of another one.

A key is a member's name up to its last dot, so that `2021.05.0001.jpg` keeps its place. WebDataset itself cuts at the
first dot, for `0001.seg.png` beside `0001.jpg`: a key that is another one's with more behind a dot goes along with it,
and is no sample, unless it has a picture and what may be its caption: `0001.1.jpg` and `0001.1.txt` are a pair.
Source: `base_plus_ext` of webdataset/tariterators.py, github.com/webdataset.

Both readers of tars, by offsets and as a stream, hold to this, so that they count alike.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from zerovl.data.raw.records import is_debris

_REMEMBERED = 1 << 18  # keys of a tar; one that is further back is no longer known to go along


def split_name(name: str) -> tuple[str, str] | None:
    """Return key and ending, in lower case; None for debris and names without an ending, which are no sample's.

    `._0.jpg` and `__MACOSX/0.jpg` are what macOS puts beside `0.jpg`; what lies in a hidden folder is debris as well.
    """
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.rpartition(".")
    if not stem or not ending or stem.startswith(".") or any(map(_is_debris, folder.split("/"))):
        return None
    return f"{folder}{slash}{stem}", ending.lower()


def _is_debris(folder: str) -> bool:
    return folder != "." and is_debris(folder)  # `tar -c .` writes ./0.jpg


def roots(key: str) -> Iterator[str]:
    """Give the keys that a key goes along with: `a/1` and `a/1.b` for `a/1.b.c`."""
    folder, slash, base = key.rpartition("/")
    at = base.find(".")
    while at >= 0:
        yield f"{folder}{slash}{base[:at]}"
        at = base.find(".", at + 1)


class RecentKeys:
    """Keys that have come, with bounded memory: the oldest ones are forgotten."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Remember a key."""
        self._keys[key] = None
        if len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)
