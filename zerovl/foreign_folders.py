"""Folders of models that other libraries wrote: where a bundle is asked for, say what makes one of them."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.files import read_json

OPEN_CLIP = "open_clip_config.json"
_CONFIG, _OURS, _THEIRS = "config.json", "format", "model_type"  # the keys of a bundle's config, and of transformers'


def refuse(folder: Path, named: str) -> None:
    """Raise `ZeroVLError` for a folder of open_clip or of transformers; `named` is what the user called it."""
    config = _config(folder)
    if _OURS in config:
        return
    if (folder / OPEN_CLIP).is_file():
        whose = f"open_clip ({OPEN_CLIP})"
    elif _THEIRS in config:
        whose = f"transformers ({_THEIRS} {config[_THEIRS]!r})"
    else:
        return
    raise ZeroVLError(
        f"{named}: a folder of {whose}, not a bundle; make one with `zerovl import {quote(str(folder))} --out MODEL`, "
        "and name MODEL instead"
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}
    except ZeroVLError:
        return {}  # whoever reads it says what is wrong
    return found if isinstance(found, dict) else {}
