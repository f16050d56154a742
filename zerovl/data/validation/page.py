"""The page of a validation: one file without any request, so it opens offline and from a mail."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from zerovl.data.validation.expectations_section import expectations_section
from zerovl.data.validation.left_out_section import left_out_section
from zerovl.data.validation.statistics import Example, Histogram, Scan
from zerovl.data.validation.verdict import NOT_LOOKED_AT
from zerovl.files import atomic_write
from zerovl.text_format import file_size, plural

_STATES = ("broken", "warning", "passed", "not checked")  # of a rule, the most urgent first
_UNBROKEN = 24  # characters of a source's name that stand on one line
_BARS = 40
_WIDTH, _HEIGHT, _FOOT = 320, 120, 16  # of a plot, in units of its view box


def _unseen(verdict: dict[str, Any]) -> str:
    names = verdict.get(NOT_LOOKED_AT, [])
    return f" Not looked at, as training streams them: {escape(', '.join(names))}." if names else ""


def write(path: Path, verdict: dict[str, Any], counted: Scan) -> None:
    """Write the page of a verdict, as in `verdict.json`; every text that came from the data is escaped."""
    rules = verdict["rules"]
    template = Template(resources.files("zerovl.data.validation").joinpath("page.html").read_text(encoding="utf-8"))
    state = "passed" if verdict["passed"] else "failed"
    page = template.substitute(
        title=f"Validation {state}",
        state=state,
        headline=f"Validation {state}",
        summary=f"{_number(verdict['rows'])} inputs. {_summary(rules)}{_unseen(verdict)}",
        digest=escape(verdict["manifest_digest"]),
        rules="\n".join(_rule(rule) for rule in sorted(rules, key=_urgency)),
        statistics="\n".join(
            _split(source, split, values)
            for source, by_split in verdict["statistics"].items()
            for split, values in by_split.items()
        ),
        quarantine=_quarantine(verdict["quarantine"]),
        drawn=_drawn(counted.drawn_valid) + _without(verdict.get("sources_without", {})),
        left_out=left_out_section(counted),
        plots="\n".join(_plots(counted)),
        expectations=expectations_section(verdict),
    )
    with atomic_write(path, "w") as file:
        file.write(page)


def _summary(rules: list[dict[str, Any]]) -> str:
    hard, soft, held, unchecked = (sum(_urgency(rule) == place for rule in rules) for place in range(len(_STATES)))
    idle = f"{unchecked} had nothing to check, " if unchecked else ""
    return (
        f"{held} of {len(rules)} rules hold, {idle}{plural(hard, 'hard rule')} broken, "
        f"{plural(soft, 'soft rule')} broken."
    )


def _urgency(rule: dict[str, Any]) -> int:
    """Return the rule's place in `_STATES`."""
    if rule["passed"]:
        return 3 if rule["value"] is None else 2  # there was nothing to judge
    return 0 if rule["level"] == "hard" else 1


def _rule(rule: dict[str, Any]) -> str:
    name = _STATES[_urgency(rule)]
    return (
        f"<tr><td><code>{escape(rule['name'])}</code></td><td class='state {name.replace(' ', '-')}'>{name}</td>"
        f"<td>{rule['level']}</td><td class='number'>{_number(rule['value'])}</td>"
        f"<td class='number'>{escape(rule['bound'])}</td>"
        f"<td>{escape(rule['message'])}{_examples(rule['examples'], opened=not rule['passed'])}</td></tr>"
    )


def _examples(examples: list[Example], opened: bool) -> str:
    if not examples:
        return ""
    items = "".join(
        f"<li>{_code(each['key'])}<span class='quiet'>{escape(each['origin'])}</span> {escape(each['detail'])}</li>"
        for each in examples
    )
    return f"<details{' open' if opened else ''}><summary>examples</summary><ul>{items}</ul></details>"


def _code(key: str) -> str:
    """A broken sample has no key."""
    return f"<code>{escape(key)}</code> " if key else ""


def _split(source: str, split: str, values: dict[str, Any]) -> str:
    def spread(name: str) -> str:
        return " / ".join(_number(values[name][quantile]) for quantile in ("p5", "p50", "p95"))

    cells = [
        *(_number(values[name]) for name in ("pairs", "captions", "broken")),
        *_equal_shares(values),
        *(spread(name) for name in ("words", "width", "height")),
        file_size(values["bytes"]["total"]),
    ]
    numbers = "".join(f"<td class='number'>{cell}</td>" for cell in cells)
    name = f"<td class='{'short' if len(source) <= _UNBROKEN else 'long'}'>{escape(source)}</td>"
    return f"<tr>{name}<td>{escape(split)}</td>{numbers}</tr>"


def _drawn(sources: dict[str, int]) -> str:
    if not sources:
        return ""
    listed = ", ".join(f"{escape(source)} ({_number(pictures)})" for source, pictures in sorted(sources.items()))
    return f"<p>Valid split drawn from train by <code>prepare.draw_valid</code> (pictures): {listed}</p>"


def _without(sources: dict[str, list[str]]) -> str:
    meanings = {"valid": "are never evaluated on", "train": "are never trained on"}
    return "".join(
        f"<p class='warning'>Without a {split} split, so they {meanings[split]}: {escape(', '.join(names))}</p>"
        for split, names in sorted(sources.items())
    )


def _equal_shares(values: dict[str, Any]) -> list[str]:
    """Of the captions and of the pictures, those that another training pair has too."""
    if "equals" not in values:
        return [_number(None)] * 2
    equals = values["equals"]
    shares = equals["captions"] / max(1, values["captions"]), equals["pictures"] / max(1, values["pairs"])
    return [f"{100 * share:.3g}%" for share in shares]


def _quarantine(reasons: dict[str, Any]) -> str:
    if not reasons:
        return "<p class='passed'>None.</p>"
    rows = "".join(
        f"<tr><td>{escape(reason)}</td><td class='number'>{_number(values['count'])}</td>"
        f"<td>{_examples(values['examples'], opened=False)}</td></tr>"
        for reason, values in reasons.items()
    )
    head = "<thead><tr><th>Reason</th><th class='number'>Inputs</th><th>Examples</th></tr></thead>"
    return f"<div class='wide'><table>{head}<tbody>{rows}</tbody></table></div>"


def _plots(counted: Scan) -> list[str]:
    labels = {"words": "words a caption", "width": "width in pixels", "height": "height in pixels"}
    return [
        _plot(getattr(values, name), f"{source}/{split}: {label}")
        for (source, split), values in sorted(counted.splits.items())
        for name, label in labels.items()
        if values.pairs
    ]


def _plot(histogram: Histogram, title: str) -> str:
    """Bars of equal width in values, the tallest as high as the plot; one value alone is said in words."""
    values, counts = histogram.sorted()
    if not len(values):
        return ""
    low, high = int(values[0]), int(values[-1])
    if low == high:
        return f"<figure><figcaption>{escape(title)}</figcaption><p>{_number(low)}, all of them</p></figure>"
    bins = min(_BARS, high - low + 1)
    edges = np.linspace(low, high + 1, bins + 1)
    heights, _ = np.histogram(values, edges, weights=counts)
    step = _WIDTH / bins
    top = _HEIGHT - _FOOT
    bars = "".join(
        f"<rect x='{i * step:.1f}' y='{top - tall:.1f}' width='{max(step - 1, 0.5):.1f}' height='{tall:.1f}'>"
        f"<title>{edges[i]:.0f} to {edges[i + 1] - 1:.0f}: {_number(int(heights[i]))}</title></rect>"
        for i in range(bins)
        if (tall := float(heights[i] / heights.max() * (top - 4))) > 0
    )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='{escape(title)}'>{bars}"
        f"<line x1='0' x2='{_WIDTH}' y1='{top}' y2='{top}'/>"
        f"<text x='0' y='{_HEIGHT - 3}'>{_number(low)}</text>"
        f"<text x='{_WIDTH}' y='{_HEIGHT - 3}' text-anchor='end'>{_number(high)}</text></svg></figure>"
    )


def _number(value: float | None) -> str:
    if value is None:
        return "–"  # noqa: RUF001 - the dash of an empty cell
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
