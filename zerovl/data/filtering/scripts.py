"""Which writing system the letters of captions are of, by Unicode's property Script as RE2 knows it.

https://www.unicode.org/reports/tr24/ has the scripts, https://github.com/google/re2/wiki/Syntax the pattern.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def script_shares(captions: Sequence[str], scripts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return (c,) of each caption: how many of its letters are of `scripts`; 1 for one without a letter."""
    text = pa.array(captions, pa.string())
    letters = _count(text, r"\p{L}")
    # A script has digits, signs and marks too, which are no letters: those of the script among the letters.
    wanted = "".join(rf"\p{{{name.capitalize()}}}" for name in scripts)
    others = _count(pc.replace_substring_regex(text, f"[{wanted}]", ""), r"\p{L}")
    return np.where(letters > 0, (letters - others) / np.maximum(letters, 1), 1.0)


def _count(text: pa.Array, pattern: str) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = pc.count_substring_regex(text, pattern).to_numpy(zero_copy_only=False)
    return counts.astype(np.int64)
