"""Pointers of Git LFS: a few lines of text in the place of a file that was not fetched.

Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

_BEGIN = b"version https://git-lfs.github.com/spec/"
HEAD = len(_BEGIN)  # bytes that tell one
SAID = "a pointer of Git LFS in place of the file; fetch it with: git lfs pull"


def is_pointer(head: bytes) -> bool:
    """Return whether a file that begins so is a pointer."""
    return head.startswith(_BEGIN)
