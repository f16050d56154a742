"""Files by the names that a table has for them, also where file system and table write letters in other ways.

One letter can be one character or a letter with a mark behind it (é as U+00E9, or as e and U+0301). macOS and some
archives write the second form into file names, tables mostly have the first, and Linux takes them for two files.
Tables from Windows and macOS have `img_1.jpg` for `IMG_1.JPG`, which are one file there. Those of Windows have `\\`
between folders, and some have blanks around a name; both may also be part of a name.
Source: Unicode Standard Annex 15, https://unicode.org/reports/tr15/.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from zerovl.data.raw.records import name_error
from zerovl.text_format import plural

_FORM, _CASE = "Unicode normal form", "letter case"  # in which a name may differ


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and how its name was found."""

    path: str
    differs: str = ""  # in what its name is not as it was asked for: "letter case"
    problem: str | None = None  # why it is not known which file is meant


def differing_notes(counts: Mapping[str, int]) -> list[str]:
    """Return what is said of pictures whose files have other names than asked for: their number by `Found.differs`."""
    return [
        f"{plural(count, 'picture')} found by a file name in another {differs}"
        for differs, count in sorted(counts.items())
        if differs
    ]


def in_any_case(folder: Path, name: str) -> Path:
    """Return the path of a name; where there is none, of the only one that differs from it in letter case alone."""
    path = folder / name
    if path.exists() or not folder.is_dir():
        return path
    others = [other for other in folder.iterdir() if other.name.lower() == name.lower()]
    return others[0] if len(others) == 1 else path


def plain_name(name: str) -> str:
    """Return a name without blanks around it, and with `/` between folders where Windows has `\\`."""
    return name.strip().replace("\\", "/")


class FileNames:
    """Finds files below one folder; folders are listed where a name is not there as it is written, and then kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._listed: dict[str, dict[str, list[str]]] = {}  # folder -> `_folded` of a name -> names there

    def find(self, name: str) -> Found:
        """Return the file of a name; a missing one as it is written, whoever opens it says so.

        Where no file has the name as it is written, the one that has it with `/` for `\\` and without blanks around
        it is taken, if that name stays in the folder.
        """
        found = self._find(name)
        plain = plain_name(name)
        if plain == name or found.problem or os.path.lexists(found.path) or name_error(plain):
            return found
        other = self._find(plain)
        return other if other.problem or os.path.lexists(other.path) else found

    def _find(self, name: str) -> Found:
        """Return the file of a name whose parts stand between `/`."""
        path = os.path.join(self._folder, name)
        if os.path.lexists(path):
            return Found(path)
        place, differs = self._folder, ""
        for part in name.split("/"):
            written = part
            if not os.path.lexists(os.path.join(place, part)):
                alike = self._alike(place, part)
                same = [other for other in alike if normalize("NFC", other) == normalize("NFC", part)]
                names = same or alike  # one in another case is not meant where one differs in its form alone
                if len(names) > 1:
                    which = _FORM if same else _CASE
                    return Found(path, problem=f"{len(names)} files have this name in other {which}s")
                if not names:
                    return Found(path)
                differs = _FORM if same and differs != _CASE else _CASE
                written = names[0]
            place = os.path.join(place, written)
        return Found(place, differs)

    def _alike(self, folder: str, name: str) -> list[str]:
        """Return the names in a folder that differ from one that is not there in letter case or normal form."""
        folded = _folded(name)
        usual = [folded] if os.path.lexists(os.path.join(folder, folded)) else []
        return [*self._names(folder).get(folded, []), *usual]

    def _names(self, folder: str) -> dict[str, list[str]]:
        """Return the names of a folder that are not as `_folded` has them: those that are need no list."""
        if folder not in self._listed:
            self._listed[folder] = {}
            try:
                with os.scandir(folder) as entries:
                    for name in sorted(entry.name for entry in entries if entry.name != _folded(entry.name)):
                        self._listed[folder].setdefault(_folded(name), []).append(name)
            except (OSError, ValueError):
                pass  # not a folder, or no name of one: nothing is found in it
        return self._listed[folder]


def _folded(name: str) -> str:
    return normalize("NFC", name.lower())
