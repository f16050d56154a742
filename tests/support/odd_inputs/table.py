"""The table of docs/data.md: what comes of each kind of odd input.

python -m tests.support.odd_inputs.table     # writes it there
"""

from __future__ import annotations

import re

from tests.support.odd_inputs import parquet, pictures, tars, texts
from tests.support.odd_inputs.kind import Kind
from tests.support.paths import ROOT

KINDS: list[Kind] = [*tars.KINDS, *pictures.KINDS, *texts.KINDS, *parquet.KINDS]
PAGE = ROOT / "docs" / "data.md"
_HEAD = "| in | what is odd | what comes of it |\n|---|---|---|\n"


def table() -> str:
    """The table, a row a kind."""
    rows = (f"| {kind.of} | {kind.what} | {kind.outcome.sentence.replace('|', ' ')} |\n" for kind in KINDS)
    return _HEAD + "".join(rows)


def with_table(page: str) -> str:
    """The page with the table of today, and its number of kinds, in the place of those that it has."""
    before, _, behind = page.partition(_HEAD)
    before = re.sub(r"\b\d+ kinds\b", f"{len(KINDS)} kinds", before)
    rest = behind.splitlines(keepends=True)
    while rest and rest[0].startswith("|"):
        del rest[0]
    return before + table() + "".join(rest)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
