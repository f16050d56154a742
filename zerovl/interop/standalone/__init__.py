"""Files that exports hand along. They run where zerovl is not installed: they import nothing of it but each other."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

_PREFIX = "from zerovl.interop.standalone."


def hand_along(module: ModuleType, folder: Path) -> None:
    """Write a module of this folder into an export, where the others lie beside it and not in a package."""
    source = Path(str(module.__file__))
    text = source.read_text(encoding="utf-8").replace(_PREFIX, "from ")
    (folder / source.name).write_text(text, encoding="utf-8")
