"""Which model scored how captions fit their pictures, in a file beside the manifest."""

from __future__ import annotations

from pathlib import Path

from zerovl.files import read_json, write_json

FILE = "agreement.json"


def note_scorer(folder: Path, model: str, digest: str) -> None:
    """Write how `params.yaml` names the model, and its digest."""
    write_json(folder / FILE, {"model": model, "digest": digest})


def scored_by(folder: Path) -> dict[str, str]:
    """Return the model that scored agreement and its digest; empty where the filter was not set."""
    path = folder / FILE
    return dict(read_json(path)) if path.is_file() else {}
