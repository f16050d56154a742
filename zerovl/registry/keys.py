"""Where a registry keeps its blobs and records in a store."""

from __future__ import annotations


def blobs(name: str) -> str:
    """Return what the keys of all files begin with."""
    return f"{name}/blobs/sha256/"


def blob(name: str, digest: str, copy: int = 0) -> str:
    """Return the key of a file, named by its sha256; `copy` counts further places of the same (`registry.blobs`)."""
    return f"{blobs(name)}{digest}.{copy}" if copy else f"{blobs(name)}{digest}"


def digest(key: str) -> str:
    """Return the sha256 that the key of a file names."""
    return key.rpartition("/")[2].partition(".")[0]


def marks(name: str) -> str:
    """Return what the keys of the lists of files to be removed begin with."""
    return f"{name}/marks/"


def mark(name: str, run: str) -> str:
    """Return the key of the list of files that one run removes."""
    return f"{marks(name)}{run}.json"


def versions(name: str) -> str:
    """Return what the keys of all versions begin with."""
    return f"{name}/versions/"


def version(name: str, number: int) -> str:
    """Return the key of a version's record."""
    return f"{versions(name)}{number}.json"


def aliases(name: str) -> str:
    """Return what the keys of all aliases begin with."""
    return f"{name}/aliases/"


def moves(name: str, alias: str) -> str:
    """Return what the keys of an alias's moves begin with."""
    return f"{aliases(name)}{alias}/"


def move(name: str, alias: str, number: int) -> str:
    """Return the key of the record of a move."""
    return f"{moves(name, alias)}{number}.json"


def notes(name: str, version: int | None = None) -> str:
    """Return what the keys of the notes on a version begin with, or of those on all versions."""
    return f"{name}/notes/" if version is None else f"{name}/notes/{version}/"


def note(name: str, version: int, number: int) -> str:
    """Return the key of a note on a version."""
    return f"{notes(name, version)}{number}.json"


def hooks(name: str, alias: str) -> str:
    """Return what the keys of the records of an alias's hooks begin with."""
    return f"{name}/hooks/{alias}/"


def hook(name: str, alias: str, move: int, number: int) -> str:
    """Return the key of the record of what came of one hook of a move."""
    return f"{hooks(name, alias)}{move}/{number}.json"


def forgotten(name: str, digest: str = "") -> str:
    """Return the key of the record of a picture that must go, or what the keys of all of them begin with."""
    return f"{name}/forgotten/{digest}.json" if digest else f"{name}/forgotten/"


def numbers(keys: list[str]) -> list[int]:
    """Return the numbers that records have in their keys, ascending; other keys are left out."""
    stems = [key.rpartition("/")[2].removesuffix(".json") for key in keys]
    return sorted(int(stem) for stem in stems if stem.isdecimal())
