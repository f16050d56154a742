"""Which models filters of `prepare` asked, each in a file beside the manifest that has the filter's name.

data/manifest/<filter>.json    how `params.yaml` names the model, and its digest
"""

from __future__ import annotations

from pathlib import Path

from zerovl.files import read_json, write_json

FILTERS = ("agreement", "semantic_duplicates")  # that ask a model, as `params.yaml` names them


def note_model(folder: Path, name: str, model: str, digest: str) -> None:
    """Write which model the filter `name` asked."""
    write_json(folder / f"{name}.json", {"model": model, "digest": digest})


def models_asked(folder: Path) -> dict[str, dict[str, str]]:
    """Return by filter the model that it asked and its digest; of filters that were not set there is nothing."""
    paths = {name: folder / f"{name}.json" for name in FILTERS}
    return {name: dict(read_json(path)) for name, path in paths.items() if path.is_file()}
