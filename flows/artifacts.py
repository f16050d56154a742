"""Pages of the UI's Artifacts tab, made from the reports that the stages wrote."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.outbox import Page
from flows.runtime.kept_reports import report_pages
from flows.runtime.paths import REPORTS_VARIABLE
from zerovl.evaluation.markdown import further_tables
from zerovl.evaluation.metrics import HEADLINE, UNSEEN, retrieval_blocks, value_of
from zerovl.evaluation.report.charts import HEIGHT, WIDTH
from zerovl.evaluation.report.curves import OF_A_SAMPLE, curves_of, draw
from zerovl.files import read_json, read_json_lines
from zerovl.registry.records import Version
from zerovl.release.gate import Reason
from zerovl.release.record import read_release
from zerovl.workspace import Workspace

# Of a chart outside the report, whose style sheet it has there.
_CHART_STYLE = (
    "svg{background:#fff}text{font:11px system-ui,sans-serif;fill:#62646d}.grid{stroke:#e6e3db}"
    "path{fill:none}.raw{stroke:#3d4fd1;stroke-width:.8;opacity:.35}.main{stroke:#3d4fd1;stroke-width:2.2}"
    "circle{fill:#fff}.chance{stroke:#62646d;stroke-width:1.4;stroke-dasharray:5 4}"
)


def validation(workspace: Workspace) -> Iterator[Page]:
    """Give a table of rules, the broken ones first, and those with nothing to check last."""
    verdict = read_json(workspace.validation_verdict)
    rules = sorted(verdict["rules"], key=lambda rule: (rule["passed"], rule["value"] is None, rule["level"] != "hard"))
    table = [
        {
            "rule": rule["name"],
            "level": rule["level"],
            "state": _state(rule),
            "value": _short(rule["value"]),
            "bound": _short(rule["bound"]),
        }
        for rule in rules
    ]
    yield Page("validation-rules", "The data against the rules of `params.yaml`", json.dumps(table), "table")


def _state(rule: dict[str, Any]) -> str:
    if not rule["passed"]:
        return "BROKEN" if rule["level"] == "hard" else "warning"
    return "nothing to check" if rule["value"] is None else "passed"


def training(workspace: Workspace) -> Iterator[Page]:
    """Give the curves of the loss and, where training scored it, of the headline metric."""
    drawn = [_picture(svg, "svg+xml", title) for title, svg in curves(read_json_lines(workspace.training_log))]
    if len(drawn) > 1:
        drawn.append(OF_A_SAMPLE)
    if drawn:
        yield Page(
            "curves", "What training did, step by step: the loss, and the score where it was taken", "\n\n".join(drawn)
        )


def curves(rows: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Give (title, SVG) for each curve that the rows of a training log have."""
    for its in draw(curves_of(rows)):
        yield f"{its.title}, {its.note}", _standalone(its.svg)


def gallery(workspace: Workspace) -> Iterator[Page]:
    """Give the picture of queries and what the model found."""
    path = workspace.evaluation_gallery
    if path.is_file():
        picture = _picture(path.read_bytes(), "png", "Queries, and what the model finds among pictures it never saw")
        yield Page("gallery", "What the model finds among pictures it never saw", picture)


def _standalone(chart: str) -> bytes:
    size = f'width="{2 * WIDTH}" height="{2 * HEIGHT}" xmlns="http://www.w3.org/2000/svg"'
    return chart.replace(">", f" {size}><style>{_CHART_STYLE}</style>", 1).encode()


def _picture(data: bytes, kind: str, title: str) -> str:
    """Return markdown with the picture inside, so that it shows wherever the UI is opened.

    Prefect's own image artifact would print the whole address, which here is the picture, below it.
    """
    return f"{title}\n\n![{title}](data:image/{kind};base64,{base64.b64encode(data).decode()})"


def summary(workspace: Workspace, run: str, before: Version | None) -> Page:
    """Return scores beside `before` (that was in production), the gate's verdict, and how to load the model."""
    metrics = read_json(workspace.evaluation_metrics)
    release = read_release(workspace.release)
    return Page("summary", f"What run {run} came to", render_summary(metrics, release, before))


def render_summary(metrics: dict[str, Any], release: dict[str, Any] | None, before: Version | None) -> str:
    """Return the markdown of `summary`."""
    comparable = before is not None and before.metrics.get("evaluation_digest") == metrics.get("evaluation_digest")
    lines = [
        "## Scores",
        "",
        f"| source | {HEADLINE.label} | 95% interval | untrained | against production |",
        "|---|---|---|---|---|",
    ]
    # By the same titles, so a mean is held against a mean, and a pool against a pool.
    unseen = {UNSEEN: metrics.get(UNSEEN, ())}
    held = dict(retrieval_blocks({**before.metrics, **unseen})) if before is not None and comparable else {}
    for name, block in retrieval_blocks(metrics):
        value, low, high, untrained = (
            block[key] for key in (HEADLINE.name, HEADLINE.low, HEADLINE.high, HEADLINE.untrained)
        )
        production = value_of(held.get(name), HEADLINE.name)
        change = "-" if production is None else f"{value - production:+.1f}"
        lines.append(f"| {name} | {value:.1f} | {low:.1f} to {high:.1f} | {untrained:.1f} | {change} |")
    if before is None:
        lines += ["", "No model is in production yet."]
    elif not comparable:
        lines += ["", "The model in production was evaluated on other data; the gate scores it again where it can."]
    lines[-1] += further_tables(metrics, {})
    if release is None:
        return "\n".join([*lines, "", "Not registered: the run was asked to do nothing after the evaluation."])
    lines += [
        "",
        "## Release",
        "",
        f"`{release['name']}@{release['version']}` in `{release['store']}`: {_fate(release, before)}.",
        "",
    ]
    reasons = [Reason(**its) for its in release["verdict"]["reasons"]]
    lines += ["| rule | state | value | bound |", "|---|---|---|---|"]
    for reason in reasons:
        state = "**FAILED**" if not reason.passed else "passed" if reason.numbers else "nothing to compare"
        value = f"gain of {_short(-reason.value)}" if reason.is_gain and reason.value else _short(reason.value)
        lines.append(f"| {reason.rule} | {state} | {value} | {_short(reason.bound)} |")
    # The UI neither wraps a cell nor shows that a table goes on beside it: sentences stand below.
    lines += ["", *(f"- `{reason.rule}`: {reason.note}" for reason in reasons if reason.note)]
    label = release["alias"] if release["promoted"] else release["version"]
    reference = f"{release['store'].rstrip('/')}/{release['name']}@{label}"
    lines += ["", "```python", "import zerovl", f'model = zerovl.load("{reference}")', "```"]
    return "\n".join(lines)


def links(folder: Path) -> Iterator[Page]:
    """Give links to the reports that were kept, where `make ui` (or another server) serves them."""
    base = os.environ.get(REPORTS_VARIABLE)
    if not base:
        return
    for page in report_pages(folder):
        link = f"[{page.title}: {page.content}]({base.rstrip('/')}/{folder.name}/{page.path})"
        yield Page(page.key, f"A page of its own, in {folder}", link)


def _fate(release: dict[str, Any], before: Version | None) -> str:
    if not release["alias"]:
        return "registered, no alias was asked for"
    if release["promoted"] and before is not None and before.number == release["version"]:
        return f"`{release['alias']}` had it before this run, and keeps it"
    if release["promoted"]:
        return f"promoted to `{release['alias']}`"
    if why := release.get("moved_away"):  # a run at a commit of before has no such key
        return f"the gate passed it, but {why}"
    return f"the gate refused it, `{release['alias']}` stays where it is"


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
