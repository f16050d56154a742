"""A folder that is there whole or not at all, written by one process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zerovl.files import sync_folder, sync_tree
from zerovl.shared_folder import open_tree


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write into, which becomes `out` on disk at the end, or is gone after an error.

    What lies at `out` is the block's to remove, last of all; else the rename raises `OSError`.
    """
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)  # of one that was killed
    aside.mkdir(parents=True)
    try:
        yield aside
        open_tree(aside)
        sync_tree(aside)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sync_folder(out.parent)
