"""What was parsed of a package's modules, kept beside its bytecode: each process would parse all of them again.

A row counts for the text that it was made of, whole rows of this Python and this program's `syntax` alone. What is
missing, older or damaged is parsed again; where nothing may be written, or bytecode is not either, nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from zerovl import syntax
from zerovl.files import atomic_write, sha256_file, sha256_json
from zerovl.syntax import Syntax

Rows = dict[str, dict[str, Any]]  # by name of the file relative to the package


class KeptSyntax:
    """The syntax of the modules of the package in a folder; `keep` writes down what had to be parsed."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._file = kept_file(package)
        self._rows = _read(self._file)
        self._found: dict[Path, Syntax] = {}
        self._parsed = False

    def of(self, path: Path) -> Syntax:
        """Return the syntax of a module, as its file was when it was first asked for."""
        if path not in self._found:
            self._found[path] = self._look(path)
        return self._found[path]

    def keep(self) -> None:
        """Write down what was parsed, for the next process; whole or not at all."""
        if not self._parsed or sys.dont_write_bytecode:
            return
        with suppress(OSError), atomic_write(self._file, "w") as file:  # not ours to write, or the disk is full
            json.dump({"rows": self._rows, "sha256": _checksum(self._rows)}, file)
        self._parsed = False

    def _look(self, path: Path) -> Syntax:
        text = path.read_text(encoding="utf-8")
        name, of = path.relative_to(self._package).as_posix(), hashlib.sha256(text.encode()).hexdigest()
        row = self._rows.get(name)
        if row is None or row["text"] != of:
            found = syntax.parse(text)
            self._rows[name], self._parsed = {"text": of, **asdict(found)}, True
            return found
        return Syntax(row["digest"], tuple(row["imports"]), row["is_empty"])


def kept_file(package: Path) -> Path:
    """Return where it is kept: as bytecode, one file for each Python, and where PYTHONPYCACHEPREFIX wants it."""
    return Path(cache_from_source(str(package / "syntax.py"))).with_suffix(".json")


def hand_on(package: Path, copy: Path) -> None:
    """Let a copy of the package in another folder begin with what is kept of this one: rows count for their texts."""
    if sys.dont_write_bytecode or not copy.is_dir():
        return
    with suppress(OSError):  # nothing is kept, or it is not ours to write
        rows, target = kept_file(package).read_bytes(), kept_file(copy)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as file:
            file.write(rows)


def _read(file: Path) -> Rows:
    """Return the rows that were kept; none where they are not whole, or of another Python or program."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        rows: Rows = kept["rows"]
        whole = kept["sha256"] == _checksum(rows)
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return rows if whole else {}


def _checksum(rows: Rows) -> str:
    """Digest of rows and of what made them."""
    return sha256_json([sys.version, _program(), rows])


@cache
def _program() -> str:
    return sha256_file(syntax.__file__)
