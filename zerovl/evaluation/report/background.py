"""Write the sections on what stands behind the scores: the verdict on the data, and the curves of the training."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from zerovl.evaluation.holder import Holder
from zerovl.evaluation.metrics import HEADLINE
from zerovl.evaluation.report import charts
from zerovl.evaluation.report.content import Curves, is_number
from zerovl.text_format import plural, short

_MAX_DOTS = 60  # points of a curve that are marked one by one


def verdict_section(verdict: dict[str, Any] | None) -> str:
    """Write the verdict on the data, from whatever of `passed` and `rules` the file has."""
    if verdict is None:
        return (
            '<div class="verdict"><span class="sign">&ndash;</span>'
            "<div>The data were not validated: no verdict was found.</div></div>"
        )
    rules = [rule for rule in verdict.get("rules", []) if isinstance(rule, dict)]
    broken = [rule for rule in rules if rule.get("passed") is False]
    idle = [rule for rule in rules if rule.get("passed") and rule.get("value", 0) is None]  # as on validation's page
    passed = verdict.get("passed", not broken) is True
    text = "Data validation passed" if passed else "Data validation failed"
    if rules:
        text += f", {len(rules) - len(broken) - len(idle)} of {plural(len(rules), 'rule')} kept"
    text += f", {len(idle)} had nothing to check." if idle else "."
    if unscored := verdict.get("sources_without", {}).get("valid"):
        text += f" Without a valid split, so in no score here: {escape(', '.join(unscored))}."
    items = "".join(
        f"<li>{escape(str(rule.get('name', 'a rule')))}: {escape(_value(rule.get('value')))}, "
        f"bound {escape(_value(rule.get('bound')))}</li>"
        for rule in broken
    )
    kind, sign = ("good", "✓") if passed else ("bad", "✗")
    return (
        f'<div class="verdict {kind}"><span class="sign">{sign}</span><div>{text}'
        f"{f'<ul>{items}</ul>' if items else ''}</div></div>"
    )


def warnings_section(warnings: Sequence[str]) -> str:
    """Write what the training warned of; nothing where it did not."""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    if not items:
        return ""
    return f'<div class="verdict bad"><span class="sign">!</span><div>The training warns:<ul>{items}</ul></div></div>'


def holder_section(holder: Holder | None) -> str:
    """Write who held the alias when the model was evaluated, and the difference; nothing where nobody did."""
    if holder is None:
        return ""
    its = holder.difference
    kind, sign = ("", "&ndash;") if its is None or its.low <= 0 <= its.high else ("good", "+")
    if its is not None and its.high < 0:
        kind, sign = "bad", "&minus;"
    note = "" if its is None else f": the difference in {HEADLINE.label} on the same queries, with its 95% interval"
    return (
        f'<div class="verdict {kind}"><span class="sign">{sign}</span><div>{escape(holder.alias)} was '
        f"{escape(str(holder))}{note}.</div></div>"
    )


def curves_section(curves: Curves) -> str:
    """Write the curves of loss and score; nothing where there is neither."""
    panels = []
    if curves.loss:
        smoothed = charts.smooth(curves.loss, len(curves.loss) // 30)
        summary = f"Training loss from {smoothed[0][1]:.3g} to {smoothed[-1][1]:.3g}" if smoothed else "Training loss"
        lines = [charts.Line(curves.loss, "raw"), charts.Line(smoothed, "main")]
        chart = charts.line_chart(lines, "step", summary, from_zero=False)
        panels.append((chart, "Loss", "each step, and smoothed"))
    if curves.score:
        title = f"{HEADLINE.label} during training"
        line = charts.Line(curves.score, "main", dots=len(curves.score) <= _MAX_DOTS)
        chart = charts.line_chart([line], "step", f"{title}, last {curves.score[-1][1]:.1f}", from_zero=True)
        panels.append((chart, title, "on a fixed sample of validation pairs, mean over sources"))
    figures = "".join(
        f'<figure class="panel"><figcaption>{title} <span>{note}</span></figcaption>{chart}</figure>'
        for chart, title, note in panels
        if chart
    )
    return f'<section><h2>Learning</h2><div class="charts">{figures}</div></section>' if figures else ""


def _value(value: Any) -> str:
    return short(value) if is_number(value) else str(value)
