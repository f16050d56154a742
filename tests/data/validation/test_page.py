"""The page loads nothing, and what came from the data cannot act in it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.validation_manifests import clean_rows, quarantine
from tests.support.validation_runs import row, validate


class Loads(HTMLParser):
    """Everything that a browser would fetch, and the text it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]


@pytest.mark.usefixtures("by_bounds")
def test_the_page_loads_nothing_and_escapes_what_came_from_data(tmp_path: Path) -> None:
    rows = clean_rows()
    hostile = '<script src="https://evil.example/x.js"></script><img src=x onerror=alert(1)>'
    for number in range(3):
        quarantine(row(rows, number), f"not a picture: {hostile}")
    row(rows, 5).update(captions=[f"\x07 {hostile}", "two blue dots"], origin=f"{hostile}.jpg")
    validate(tmp_path, rows, max_broken_fraction=0.1)
    page = (tmp_path / "reports/validation/index.html").read_text(encoding="utf-8")
    parsed = Loads()
    parsed.feed(page)
    assert set(parsed.addresses) == {"data:,", "verdict.json", "broken.csv", "data_docs/index.html"}
    assert not {"script", "img", "iframe", "object"} & set(parsed.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert "&lt;script src=&quot;https://evil.example" in page
    assert "$" not in re.sub(r"<code>.*?</code>", "", page)  # no placeholder is left
