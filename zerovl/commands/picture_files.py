"""The pictures of a folder that a command is given."""

from __future__ import annotations

from pathlib import Path

from zerovl.errors import ZeroVLError


def picture_files(folder: Path) -> list[Path]:
    """List the pictures of a folder and its sub-folders, by path; raises `ZeroVLError` where there are none."""
    # Here, since they import the parameters: a query of an index needs none.
    from zerovl.data.raw.records import is_debris
    from zerovl.evaluation.classification.sets import SUFFIXES

    if not folder.is_dir():
        raise ZeroVLError(f"{folder}: no such folder; give the one with the pictures with --images")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(map(is_debris, path.relative_to(folder).parts))
        and path.is_file()
    )
    if not files:
        raise ZeroVLError(f"{folder}: no pictures in it ({', '.join(sorted(SUFFIXES))})")
    return files
