"""Write `report.html`: one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from zerovl.evaluation.metrics import HEADLINE, OVERALL, UNSEEN, headline_block, headline_title
from zerovl.evaluation.report.background import curves_section, holder_section, verdict_section, warnings_section
from zerovl.evaluation.report.content import Content
from zerovl.evaluation.report.queries import query_sections
from zerovl.evaluation.report.score_tables import further_sections, retrieval_section, share, times
from zerovl.text_format import plural


def render(content: Content) -> str:
    """Write the whole page. Everything that users supplied is escaped."""
    style = files("zerovl.evaluation.report").joinpath("report.css").read_text(encoding="utf-8")
    value = headline_block(content.metrics)[1][HEADLINE.name]
    body = "".join(
        [
            _headline(content.metrics),
            warnings_section(content.warnings),
            holder_section(content.holder),
            verdict_section(content.verdict),
            curves_section(content.curves),
            retrieval_section(content.metrics),
            further_sections(content.metrics, content.details),
            query_sections(content.gallery, content.pictures),
            _footer(content.metrics, content.resamples),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{HEADLINE.label} {value:.1f} · ZeroVL evaluation</title>"
        f"<style>\n{style}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def _headline(metrics: Mapping[str, Any]) -> str:
    block, sources = headline_block(metrics)[1], len(metrics["sources"])
    value, low, high = (block[name] for name in (HEADLINE.name, HEADLINE.low, HEADLINE.high))
    chance, best = block[HEADLINE.chance], f"{HEADLINE.maximum:.0f}"
    facts = [
        ("95% interval", f"{low:.1f} to {high:.1f}"),
        ("over untrained", times(block[HEADLINE.over_untrained])),
        ("untrained", f"{block[HEADLINE.untrained]:.1f}"),
        ("chance", f"{chance:.1f}"),
        ("pictures", f"{block['images']:,}"),
        ("captions", f"{block['captions']:,}"),
    ]
    if sources > 1:
        facts.append(("pool", f"{metrics[OVERALL][HEADLINE.name]:.1f}"))
    if unseen := metrics.get(UNSEEN):
        facts.append(("unseen in training", plural(len(unseen), "source")))
    items = "".join(f"<div><dt>{name}</dt><dd>{fact}</dd></div>" for name, fact in facts)
    return (
        f'<header><p class="kicker">ZeroVL evaluation · retrieval over {plural(sources, "source")}</p>'
        f'<div class="hero"><h1>{value:.1f}<small>{headline_title(metrics)}, of {best}</small></h1>'
        f'<dl class="facts">{items}</dl></div>'
        f'<div class="ruler" role="img" aria-label="{HEADLINE.label} on a scale from 0 to {best}">'
        f'<div class="track"></div><div class="fill" style="width:{share(value)}"></div>'
        f'<div class="band" style="left:{share(low)};width:{share(high - low)}"></div>'
        f'<div class="tick" style="left:{share(chance)}"></div>'
        f'<span class="name" style="left:min({share(chance)}, 80%)">chance</span>'
        f'<span class="name end">{best}</span></div></header>'
    )


def _footer(metrics: Mapping[str, Any], resamples: int) -> str:
    return (
        "<footer><p>Pictures are counted once by id; a query counts when any right item is among the first k. Items "
        "with the same score stand in random order, and a query counts with its expected value. The headline is the "
        "mean of the sources' scores; untrained and chance are means too. The interval comes "
        f"from {resamples:,} bootstrap resamples of pictures with their captions, within each source; it does not "
        "cover the chance of another training run. Untrained: the same architecture with random weights. Chance: the "
        "exact expectation of a random order.</p>"
        f"<p>Model <code>{escape(metrics['model_digest'])}</code><br>"
        f"Evaluation data <code>{escape(metrics['evaluation_digest'])}</code></p></footer>"
    )
