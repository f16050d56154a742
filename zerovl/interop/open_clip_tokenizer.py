"""What open_clip does to captions before its tokenizer reads them, as normalisers that a `tokenizer.json` can hold.

Those that models were trained with and that change the words: `canonicalize` of SigLIP (small letters, no punctuation),
and `lower`. HTML entities and odd Unicode, which open_clip rewrites too, are read as they are.
"""

from __future__ import annotations

import re
import string
from typing import Any

from tokenizers import Regex
from tokenizers.normalizers import Lowercase, Normalizer, Replace, Strip

from zerovl.errors import ZeroVLError

_WAYS = ("whitespace", "lower", "canonicalize")  # of open_clip 3.3's tokenizer.py


def cleaning(text: dict[str, Any], origin: str) -> tuple[Normalizer, ...]:
    """Return what `text_cfg` asks for, in order; raises `ZeroVLError` for what has no counterpart here."""
    given = {key: value for key, value in (text.get("tokenizer_kwargs") or {}).items() if value}
    way = given.pop("clean", "whitespace")
    if given or way not in _WAYS:
        raise ZeroVLError(
            f"{origin}: tokenizer_kwargs is {text['tokenizer_kwargs']}; read is clean alone: {', '.join(_WAYS)}"
        )
    spaces = (Replace(Regex(r"\s+"), " "), Strip())
    if way == "lower":
        return (*spaces, Lowercase())
    if way == "canonicalize":
        punctuation = Regex(f"[{re.escape(string.punctuation)}]")
        return (Replace("_", " "), Replace(punctuation, ""), Lowercase(), *spaces)
    return ()
