"""Files that exports hand along. They run where zerovl is not installed: they import nothing of it but each other.

`zerovl.picture_looks` goes with them: it needs as little.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

_BESIDE = (("from zerovl.interop.standalone.", "from "), ("from zerovl.picture_looks ", "from picture_looks "))


def hand_along(module: ModuleType, folder: Path) -> None:
    """Write a module into an export, where what it imports of zerovl lies beside it and not in a package."""
    source = Path(str(module.__file__))
    text = source.read_text(encoding="utf-8")
    for inside, beside in _BESIDE:
        text = text.replace(inside, beside)
    (folder / source.name).write_text(text, encoding="utf-8")
