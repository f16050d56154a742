"""Read what the training warned of, for those who show a model's scores."""

from __future__ import annotations

import json
from pathlib import Path


def read_warnings(path: Path) -> tuple[str, ...]:
    """Return the warnings of a training's `run.json`; empty where there is no such file, or none that can be read."""
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(map(str, described.get("warnings") or ())) if isinstance(described, dict) else ()
