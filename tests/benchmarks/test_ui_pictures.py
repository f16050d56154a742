"""The pictures of the UI: those that the pages show are those that are made, and nothing else."""

from __future__ import annotations

import re

from benchmarks.readme_places import ROOT
from benchmarks.ui_pictures import PICTURES


def test_what_the_pages_show_is_made() -> None:
    pages = [ROOT / "README.md", ROOT / "flows" / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {name for page in pages for name in re.findall(r"[\w/]*docs/ui-([\w-]+)\.png", page.read_text())}
    assert shown == set(PICTURES) == {path.stem.removeprefix("ui-") for path in (ROOT / "docs").glob("ui-*.png")}
