"""The reports of a run, in its checkout and where they outlive it: which pages there are, and what the run came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zerovl.evaluation.metrics import HEADLINE, headline_block, value_of
from zerovl.files import read_json
from zerovl.release.record import read_release
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class ReportPage:
    """A page that a person reads."""

    key: str  # of its link in the Artifacts tab
    path: str  # below the folder of reports, with slashes
    title: str
    content: str  # what is on it


_HERE = Workspace()
_PAGES = (
    ("evaluation-report", _HERE.evaluation_page, "Evaluation", "scores, curves, gallery"),
    ("validation-report", _HERE.validation_page, "Validation", "rules, statistics, examples"),
)


def report_pages(reports: Path) -> Iterator[ReportPage]:
    """Give the pages that are in a folder of reports."""
    for key, path, title, content in _PAGES:
        page = ReportPage(key, _below(path).as_posix(), title, content)
        if (reports / page.path).is_file():
            yield page


def outcome(reports: Path) -> str:
    """Return score and release in a folder of reports, in a line; "" where nothing was evaluated."""
    metrics = reports / _below(_HERE.evaluation_metrics)
    score = value_of(headline_block(read_json(metrics))[1], HEADLINE.name) if metrics.is_file() else None
    if score is None:
        return ""
    scored = f"{HEADLINE.label} {score:.1f}"
    release = read_release(reports / _below(_HERE.release))
    if release is None:
        return f"{scored}, not registered"
    return f"{scored}, {release['name']}@{release['version']}" + (
        f", {release['alias']}" if release["promoted"] else ""
    )


def _below(path: Path) -> Path:
    """Return where a file of the reports lies in their folder."""
    return path.relative_to(_HERE.release.parent)
