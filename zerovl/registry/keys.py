"""Where a registry keeps its blobs and records in a store."""

from __future__ import annotations


def blob(name: str, digest: str) -> str:
    """Return the key of a file, named by its sha256."""
    return f"{name}/blobs/sha256/{digest}"


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


def numbers(keys: list[str]) -> list[int]:
    """Return the numbers that records have in their keys, ascending; other keys are left out."""
    stems = [key.rpartition("/")[2].removesuffix(".json") for key in keys]
    return sorted(int(stem) for stem in stems if stem.isdecimal())
