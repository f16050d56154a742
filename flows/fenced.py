"""What a command printed, as a part of a page of the Artifacts tab."""

from __future__ import annotations

import textwrap

_WIDTH = 84  # letters that the UI shows of a line in a window of 1280 pixels; the rest would be out of sight
_INDENT = " " * 12  # below the values of `zerovl registry history`


def fenced(text: str) -> str:
    """Return markdown that keeps the lines of `text`; one that is longer than the UI shows goes on in the next."""
    lines = [
        piece
        for line in text.splitlines()
        for piece in textwrap.wrap(line, _WIDTH, subsequent_indent=_INDENT, break_on_hyphens=False) or [""]
    ]
    return "\n".join(["```", *lines, "```"])
