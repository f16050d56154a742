"""Sentences as they are written for a terminal, on a page."""

from __future__ import annotations

import re
from html import escape


def marked(text: str) -> str:
    """Return HTML of a sentence: escaped, and what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
