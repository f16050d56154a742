"""Write a comparison as one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from urllib.parse import quote

from zerovl.comparison.differences import Change, Row, Scores
from zerovl.comparison.parameters import Parameter
from zerovl.comparison.query_section import query_section
from zerovl.comparison.shown_queries import ShownQueries
from zerovl.comparison.subject import Subject
from zerovl.comparison.terminal import number, numbers
from zerovl.evaluation.metrics import HEADLINE, MEAN, headline_title
from zerovl.evaluation.report import charts
from zerovl.evaluation.report.curves import MAX_DOTS, OF_A_SAMPLE, Curves
from zerovl.evaluation.report.markup import marked

_LONGEST = 26  # characters of a name in tables


@dataclass(frozen=True)
class Content:
    """Everything that the page is made from."""

    subjects: Sequence[Subject]
    scores: Scores
    parameters: Sequence[Parameter]
    queries: ShownQueries
    resamples: int
    plots: str = ""  # address of the page of `dvc plots`, from this one; "" where there is none


def render(content: Content) -> str:
    """Write the whole page. Everything that users supplied is escaped."""
    report = files("zerovl.evaluation.report").joinpath("report.css").read_text(encoding="utf-8")
    own = files("zerovl.comparison").joinpath("compare.css").read_text(encoding="utf-8")
    labels = [subject.label for subject in content.subjects]
    short = short_labels(labels)
    body = "".join(
        [
            _head(content),
            _changes_section(content.scores, short),
            _scores_section(content.scores, short),
            _parameters_section(content.parameters, short),
            _curves_section(content.subjects, content.plots),
            query_section(content.queries, short),
            _footer(content.resamples),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(' · '.join(labels))} · ZeroVL comparison</title>"
        f"<style>\n{report}\n{own}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def short_labels(labels: Sequence[str]) -> list[str]:
    """Cut long names at their begin, for tables and lines; the cards at the head have them whole."""
    short = [label if len(label) <= _LONGEST else f"…{label[1 - _LONGEST :]}" for label in labels]
    return short if len(set(short)) == len(labels) else list(labels)


def _head(content: Content) -> str:
    """Name those who are compared, each with its colour, its headline and how it differs from the first."""
    row = next((row for row in content.scores.rows if (row.part, row.metric) == (MEAN, HEADLINE.name)), None)
    cards = []
    for place, subject in enumerate(content.subjects):
        value = number(row.values[place]) if row else "-"
        change, why = "", content.scores.unpaired[place - 1] if place else ""
        if row and place and (its := row.changes[place - 1]):
            change = f'<p class="change {_kind(its)}">{_change(its)}</p>'
        if why:
            change += f'<p class="muted">unpaired: {marked(why)}</p>'
        cards.append(
            f'<div class="panel card s{place}"><h2>{escape(subject.label)}</h2>'
            f'<p class="muted">{escape(subject.origin)}</p>'
            f'<p class="score">{value}<small>{_title(subject)}</small></p>{change}</div>'
        )
    return (
        '<header><p class="kicker">ZeroVL comparison · each against the first</p>'
        f'<div class="cards">{"".join(cards)}</div></header>'
    )


def _title(subject: Subject) -> str:
    """What the headline is of; the mean of a release of before there was one is made of its ranks."""
    return headline_title(subject.metrics) if MEAN in subject.metrics else f"{HEADLINE.label}, mean over sources"


def _changes_section(scores: Scores, labels: Sequence[str]) -> str:
    """Draw the paired differences of the headline with their intervals, around 0; nothing where there is none."""
    rows = [row for row in scores.rows if row.metric == HEADLINE.name]
    drawn = [
        (row.part, place, change)
        for row in rows
        for place, change in enumerate(row.changes, 1)
        if change and change.interval
    ]
    if not drawn:
        return ""
    reach = max(max(abs(its.interval.low), abs(its.interval.high)) for _, _, its in drawn if its.interval) or 1.0

    def at(value: float) -> float:
        return 50.0 + 48.0 * value / reach

    lanes = []
    for part, place, its in drawn:
        if its.interval is None:
            continue
        low, high = at(its.interval.low), at(its.interval.high)
        lanes.append(
            f'<div class="delta s{place}"><span>{escape(part)}{_whose(labels, place)}</span><div class="lane"><i></i>'
            f'<u style="left:{low:.2f}%;width:{high - low:.2f}%"></u><b style="left:{at(its.value):.2f}%"></b></div>'
            f"<span>{_change(its)}</span></div>"
        )
    return (
        f"<section><h2>Difference in {HEADLINE.label}</h2><p>Against {escape(labels[0])}, on the same queries, with "
        "the 95% interval of the paired difference. Where it reaches the line in the middle, it may be chance.</p>"
        f'<div class="panel deltas">{"".join(lanes)}</div></section>'
    )


def _whose(labels: Sequence[str], place: int) -> str:
    """Name the subject of a difference where there are several, for whom colours do not tell apart."""
    return f"<small>{escape(labels[place])}</small>" if len(labels) > 2 else ""


def _scores_section(scores: Scores, labels: Sequence[str]) -> str:
    if not scores.rows:
        return ""
    heads = "".join(f"<th>{escape(label)}</th>" for label in labels)
    heads += "".join(f"<th>{escape(label)} &minus; {escape(labels[0])}</th>" for label in labels[1:])
    rows = "".join(_score_row(row) for row in scores.rows)
    several = any(row.part != MEAN for row in scores.rows)
    of_the_mean = ", of the mean over sources" if several else ""
    return (
        f"<section><h2>Scores</h2><p>Recalls in percent{of_the_mean}. Unpaired: the plain difference of two numbers "
        "that were not measured on the same queries or pictures. No interval: nothing is kept by query or "
        f"picture, or it is a count or a baseline.</p>{_lacking(scores, labels)}"
        f'<div class="scroll compared"><table><thead><tr><th>Score</th>{heads}</tr></thead><tbody>{rows}</tbody>'
        "</table></div></section>"
    )


def _lacking(scores: Scores, labels: Sequence[str]) -> str:
    """Say why metrics have no interval; nothing where all that could have one has it."""
    said = [
        f"<li>{escape(label)} &minus; {escape(labels[0])}, {marked(why)}</li>"
        for place, label in enumerate(labels)
        if place
        for why in scores.lacking(place)
    ]
    return f'<ul class="lacking">{"".join(said)}</ul>' if said else ""


def _score_row(row: Row) -> str:
    overall = " class=overall" * ((row.part, row.metric) == (MEAN, HEADLINE.name))
    values = "".join(f"<td>{text}</td>" for text in numbers(row))
    changes = "".join(
        "<td>&ndash;</td>" if its is None else f'<td class="{_kind(its)}">{_change(its)}</td>' for its in row.changes
    )
    return f'<tr{overall}><th scope="row">{_breakable(row.name)}</th>{values}{changes}</tr>'


def _breakable(name: str) -> str:
    """Let a name of a metric break where its words end."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _parameters_section(parameters: Sequence[Parameter], labels: Sequence[str]) -> str:
    if not parameters:
        return "<section><h2>Parameters</h2><p>No parameter that is known of all differs.</p></section>"
    heads = "".join(f"<th>{escape(label)}</th>" for label in labels)
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(its.key)}</code></th>'
        + "".join(f"<td>{escape(value)}</td>" for value in its.values)
        + "</tr>"
        for its in parameters
    )
    return (
        "<section><h2>Parameters that differ</h2><p>By their names in params.yaml; a dash where it is not known.</p>"
        f'<div class="scroll compared params"><table><thead><tr><th>Parameter</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _curves_section(subjects: Sequence[Subject], plots: str) -> str:
    """Draw the trainings' curves over each other, with the way to those of DVC; nothing where no curve is known."""
    known = [place for place, subject in enumerate(subjects) if subject.curves.loss or subject.curves.score]
    if not known:
        return ""
    chance = _chance_lines(subjects)
    panels = [
        ("Loss", "smoothed", _chart(subjects, "loss", lambda its: charts.smooth(its.loss, len(its.loss) // 30), 0)),
        (
            f"{HEADLINE.label} during training",
            "of a sample; dashed: chance" if chance else "of a sample",
            _chart(subjects, "score", lambda its: its.score, MAX_DOTS, chance),
        ),
    ]
    figures = "".join(
        f'<figure class="panel"><figcaption>{title} <span>{note}</span></figcaption>{chart}</figure>'
        for title, note, chart in panels
        if chart
    )
    legend = "".join(f'<li class="s{place}">{escape(subjects[place].label)}</li>' for place in known)
    lacking = [escape(subject.label) for place, subject in enumerate(subjects) if place not in known]
    note = f" Not here: the training log of {', '.join(lacking)}." if lacking else ""
    if any(subject.curves.score for subject in subjects):
        note += f" {OF_A_SAMPLE}"
    if plots:
        note += (
            f' <a href="{escape(quote(plots))}">The page of dvc plots</a> has every column of the logs that it drew.'
        )
    return (
        f"<section><h2>Learning</h2><p>A step is a step of each one's own batch size.{note}</p>"
        f'<ul class="legend">{legend}</ul><div class="charts">{figures}</div></section>'
    )


def _chance_lines(subjects: Sequence[Subject]) -> list[charts.Line]:
    """What a random order gets on the sample of each training; one line where that is the same for several."""
    distinct = dict.fromkeys(tuple(subject.curves.chance) for subject in subjects)
    return [charts.Line(points, "chance") for points in distinct if points]


def _chart(
    subjects: Sequence[Subject],
    what: str,
    points: Callable[[Curves], charts.Points],
    most_dots: int,
    below: Sequence[charts.Line] = (),
) -> str:
    lines = [
        charts.Line(its, f"s{place}", dots=len(its) <= most_dots)
        for place, its in enumerate(points(subject.curves) for subject in subjects)
    ]
    ends: Mapping[str, float] = {
        subject.label: line.points[-1][1] for subject, line in zip(subjects, lines, strict=True) if line.points
    }
    summary = f"{what} at the end: " + ", ".join(f"{label} {value:.3g}" for label, value in ends.items())
    return charts.line_chart([*below, *lines], "step", summary, from_zero=what == "score")


def _change(change: Change) -> str:
    """Write a difference with its interval, with real minus signs."""
    return escape(str(change)).replace("-", "&minus;")


def _kind(change: Change) -> str:
    if not change.sure:
        return "unsure"
    return "better" if change.value > 0 else "worse"


def _footer(resamples: int) -> str:
    return (
        "<footer><p>Nothing was embedded or ranked for this page: scores and ranks by query are those of each one's "
        f"own evaluation. Paired intervals come from {resamples:,} bootstrap resamples of pictures with their "
        "captions, drawn within each source or fold, or of the pictures of a set, the same for both. They say how much "
        "the difference would move with other queries or pictures; they do not cover the chance of another training "
        "run.</p></footer>"
    )
