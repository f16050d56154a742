"""Which sources had their valid split drawn, in a file beside the manifest."""

from __future__ import annotations

from pathlib import Path

from zerovl.data.manifest import Manifest
from zerovl.files import read_json, write_json

FILE = "drawn_valid.json"


def note_drawn(manifest: Manifest, sources: list[str]) -> None:
    """Write which sources had their valid split drawn, where any had, with the number of pictures."""
    if sources:
        write_json(manifest.folder / FILE, {source: manifest.pairs(source, "valid") for source in sources})


def drawn_sources(folder: Path) -> dict[str, int]:
    """Return the sources whose valid split was drawn, each with its pictures."""
    path = folder / FILE
    return dict(read_json(path)) if path.is_file() else {}
