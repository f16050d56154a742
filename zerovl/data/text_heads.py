"""What the first bytes of a table say against reading it at all, each with the fix."""

from __future__ import annotations

from pathlib import Path

from zerovl import lfs_pointers
from zerovl.errors import ZeroVLError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, with which Windows saves "Unicode"


def refuse_by_head(path: Path) -> None:
    """Raise `ZeroVLError` for a pointer of Git LFS and for UTF-16; `OSError` where the file cannot be read."""
    with open(path, "rb") as file:
        head = file.read(lfs_pointers.HEAD)
    if lfs_pointers.is_pointer(head):
        raise ZeroVLError(f"{path}: {lfs_pointers.SAID}")
    if head.startswith(_UTF_16):
        raise ZeroVLError(
            f"{path}: UTF-16, not UTF-8; save it as UTF-8, for example: iconv -f UTF-16 -t UTF-8 {path.name} > "
            f"fixed{path.suffix}"
        )
