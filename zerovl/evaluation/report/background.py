"""Write the sections on what stands behind the scores: the verdict on the data, and the curves of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from zerovl.evaluation.holder import Holder
from zerovl.evaluation.metrics import HEADLINE
from zerovl.evaluation.report.curves import OF_A_SAMPLE, Curves, draw, is_number
from zerovl.evaluation.report.markup import marked
from zerovl.text_format import plural, short


def verdict_section(verdict: dict[str, Any] | None) -> str:
    """Write the verdict on the data, from whatever of `passed` and `rules` the file has."""
    if verdict is None:
        return (
            '<div class="verdict"><span class="sign">&ndash;</span>'
            "<div>The data were not validated: no verdict was found.</div></div>"
        )
    rules = [rule for rule in verdict.get("rules", []) if isinstance(rule, dict)]
    broken = [rule for rule in rules if rule.get("passed") is False]
    warned = [rule for rule in broken if rule.get("level") == "soft"]
    idle = [rule for rule in rules if rule.get("passed") and rule.get("value", 0) is None]  # as on validation's page
    passed = verdict.get("passed", not broken) is True
    text = "Data validation passed" if passed else "Data validation failed"
    if rules:
        hard = len(broken) - len(warned)
        parts = [
            f"{len(rules) - len(broken) - len(idle)} of {plural(len(rules), 'rule')} kept",
            *([f"{len(idle)} had nothing to check"] if idle else []),
            *([f"{plural(hard, 'hard rule')} broken"] if hard else []),
            *([f"{plural(len(warned), 'soft rule')} broken (a warning)"] if warned else []),
        ]
        text += f": {', '.join(parts)}"
    text += "."
    if unscored := verdict.get("sources_without", {}).get("valid"):
        text += f" Without a valid split, so in no score here: {escape(', '.join(unscored))}."
    items = "".join(f"<li>{marked(_broken(rule))}</li>" for rule in broken)
    kind, sign = ("good", "✓") if passed else ("bad", "✗")
    if passed and broken:
        kind, sign = "warned", "!"
    return (
        f'<div class="verdict {kind}"><span class="sign">{sign}</span><div>{text}'
        f"{f'<ul>{items}</ul>' if items else ''}</div></div>"
    )


def _broken(rule: Mapping[str, Any]) -> str:
    """Say which rule is broken, by what, and what that means, in the rule's own words where it has some."""
    said = f"{rule.get('name', 'a rule')}: {_value(rule.get('value'))}, bound {_value(rule.get('bound'))}"
    return f"{said} ({rule['message']})" if rule.get("message") else said


def warnings_section(warnings: Sequence[str]) -> str:
    """Write what the training warned of; nothing where it did not."""
    items = "".join(f"<li>{marked(text)}</li>" for text in warnings)
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
    figures = "".join(
        f'<figure class="panel"><figcaption>{its.title} <span>{its.note}</span></figcaption>{its.svg}</figure>'
        for its in draw(curves)
    )
    said = f"<p>{OF_A_SAMPLE}</p>" if curves.score else ""
    return f'<section><h2>Learning</h2>{said}<div class="charts">{figures}</div></section>' if figures else ""


def _value(value: Any) -> str:
    return short(value) if is_number(value) else str(value)
