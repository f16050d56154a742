"""Where a registry keeps its blobs and records in a store."""

from __future__ import annotations


def blob(name: str, digest: str) -> str:
    return f"{name}/blobs/sha256/{digest}"


def versions(name: str) -> str:
    """What the keys of all versions begin with."""
    return f"{name}/versions/"


def version(name: str, number: int) -> str:
    return f"{versions(name)}{number}.json"


def aliases(name: str) -> str:
    """What the keys of all aliases begin with."""
    return f"{name}/aliases/"


def moves(name: str, alias: str) -> str:
    """What the keys of an alias's moves begin with."""
    return f"{aliases(name)}{alias}/"


def move(name: str, alias: str, number: int) -> str:
    return f"{moves(name, alias)}{number}.json"


def numbers(keys: list[str]) -> list[int]:
    """Of records, ascending; other keys are left out."""
    stems = [key.rpartition("/")[2].removesuffix(".json") for key in keys]
    return sorted(int(stem) for stem in stems if stem.isdecimal())
