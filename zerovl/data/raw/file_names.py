"""Files by the names that a table has for them, also where file system and table write letters in other ways.

One letter can be one character or a letter with a mark behind it (é as U+00E9, or as e and U+0301). macOS and some
archives write the second form into file names, tables mostly have the first, and Linux takes them for two files.
Tables of Windows have `\\` between folders, and some have blanks around a name; both may also be part of a name.
Source: Unicode Standard Annex 15, https://unicode.org/reports/tr15/.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from zerovl.data.raw.records import name_error
from zerovl.text_format import plural


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and how its name was found."""

    path: str
    renamed: bool = False  # it has the name in another normal form
    problem: str | None = None  # why it is not known which file is meant


def renamed_note(count: int) -> str:
    """Return what is said of pictures whose files have their names in another normal form."""
    return f"{plural(count, 'picture')} found by a file name in another Unicode normal form"


def plain_name(name: str) -> str:
    """Return a name without blanks around it, and with `/` between folders where Windows has `\\`."""
    return name.strip().replace("\\", "/")


class FileNames:
    """Finds files below one folder; folders are listed where a name is not there as it is written, and then kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._listed: dict[str, dict[str, list[str]]] = {}  # folder -> NFC of a name -> names there

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
        if name.isascii() or os.path.lexists(path):
            return Found(path)
        place = self._folder
        for part in name.split("/"):
            names = [part] if part.isascii() else self._names(place).get(normalize("NFC", part), [])
            if part in names:
                names = [part]
            if not names:
                return Found(path)
            if len(names) > 1:
                return Found(path, problem=f"{len(names)} files have this name in other Unicode normal forms")
            place = os.path.join(place, names[0])
        return Found(place, renamed=True)

    def _names(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._listed:
            self._listed[folder] = {}
            try:
                with os.scandir(folder) as entries:
                    for name in sorted(entry.name for entry in entries if not entry.name.isascii()):
                        self._listed[folder].setdefault(normalize("NFC", name), []).append(name)
            except (OSError, ValueError):
                pass  # not a folder, or no name of one: nothing is found in it
        return self._listed[folder]
