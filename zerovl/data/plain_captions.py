"""Captions as they are compared with each other."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def plain_captions(captions: pa.Array) -> list[str]:
    """Return captions (c,) without what tells no picture from another: letter case and the number of spaces."""
    lower = pc.utf8_lower(captions)
    plain: list[str] = pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, r"\s+", " ")).to_pylist()
    return plain
