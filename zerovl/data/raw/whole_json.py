"""Files that are one JSON value, read as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zerovl.data.text_heads import refuse_by_head
from zerovl.errors import ZeroVLError


def whole_json(path: Path) -> Any:
    """Return what a file has; raises `ZeroVLError` where it is not JSON in UTF-8."""
    refuse_by_head(path)
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: also bad UTF-8, and numbers of too many digits
        raise ZeroVLError(f"{path}: not valid JSON ({error}); fetch the file again") from None
