"""Write the scores: retrieval with its bars, and a table for each further evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from zerovl.evaluation.metrics import HEADLINE, blocks, cell, further_evaluators, metric_names, retrieval_blocks
from zerovl.evaluation.report.class_tables import class_note, class_tables

Block = Mapping[str, Any]
_OF_SEVERAL = (
    "A source is searched alone, and the mean over sources is the headline. The pool is all sources searched as one, "
    "where telling sources apart helps. "
)


def retrieval_section(metrics: Block) -> str:
    """Write recalls and the headline metric: the mean, the pool, and each source alone; one source as it is."""
    parts = retrieval_blocks(metrics)
    rows = "".join(_row(name, block, overall=not place) for place, (name, block) in enumerate(parts))
    recalls = "".join(f"<th>R@{k}</th>" for k in (1, 5, 10) * 2)
    bars = "".join(_bars(name, block) for name, block in parts)
    return (
        "<section><h2>Scores</h2><p>Share of queries, in percent, with a right answer among the first 1, 5 and 10. "
        f"{HEADLINE.label} is their sum. {_OF_SEVERAL if len(parts) > 1 else ''}Unseen: a source without training "
        'pairs.</p><div class="scroll"><table><thead><tr><th></th><th colspan="4"></th>'
        '<th colspan="3">picture → text</th><th colspan="3">text → picture</th><th colspan="2"></th></tr>'
        f"<tr><th>Source</th><th>{HEADLINE.label}</th>"
        f"<th>Untrained</th><th>Chance</th><th>&times;</th>{recalls}<th>Pictures</th><th>Captions</th></tr></thead>"
        f'<tbody>{rows}</tbody></table></div><div class="bars">{bars}</div></section>'
    )


def further_sections(metrics: Block, details: Block) -> str:
    """Write a table for each evaluator beside retrieval, with the names that it gives its metrics and its details."""
    sections = []
    for evaluator, table in further_evaluators(metrics).items():
        names, its_details = metric_names(table), details.get(evaluator, {})
        head, whole = ("Source", "All sources") if table.get("sources") else ("", "All pictures")
        heads = "".join(f"<th>{escape(name)}</th>" for name in names)
        rows = "".join(
            f'<tr{" class=overall" * (not place)}><th scope="row">{escape(source if place else whole)}</th>'
            f"{''.join(_cell(block, name) for name in names)}</tr>"
            for place, (source, block) in enumerate(blocks(table))
        )
        sections.append(
            f"<section><h2>{escape(evaluator)}</h2>{class_note(its_details)}"
            f'<div class="scroll"><table><thead><tr><th>{head}</th>{heads}</tr>'
            f"</thead><tbody>{rows}</tbody></table></div>{class_tables(its_details)}</section>"
        )
    return "".join(sections)


def times(ratio: float | None) -> str:
    """Write a ratio, or a dash where there is none."""
    return "&ndash;" if ratio is None else f"{ratio:.1f}&times;"


def share(score: float) -> str:
    """Write the headline metric as a share of the best possible, for lengths in CSS."""
    return f"{100 * min(max(score, 0.0), HEADLINE.maximum) / HEADLINE.maximum:.2f}%"


def _row(name: str, block: Block, *, overall: bool) -> str:
    recalls = "".join(f"<td>{block[f'{way}_r{k}']:.1f}</td>" for way in ("i2t", "t2i") for k in (1, 5, 10))
    return (
        f'<tr{" class=overall" * overall}><th scope="row">{escape(name)}</th>'
        f'<td class="headline">{block[HEADLINE.name]:.1f}<span class="range">{block[HEADLINE.low]:.1f} to '
        f"{block[HEADLINE.high]:.1f}</span></td><td>{block[HEADLINE.untrained]:.1f}</td>"
        f"<td>{block[HEADLINE.chance]:.1f}</td><td>{times(block[HEADLINE.over_untrained])}</td>{recalls}"
        f"<td>{block['images']:,}</td><td>{block['captions']:,}</td></tr>"
    )


def _cell(block: Block, name: str) -> str:
    value, interval = cell(block, name)
    below = f'<span class="range">{interval}</span>' if interval else ""
    return f"<td>{value or '&ndash;'}{below}</td>"


def _bars(name: str, block: Block) -> str:
    low, high = block[HEADLINE.low], block[HEADLINE.high]
    whisker = f'<u style="left:{share(low)};width:{share(high - low)}"></u>'
    bars = "".join(
        f'<div class="bar{" model" * (label == "Trained")}"><span>{label}</span><div class="lane">'
        f'<i style="width:{share(value)}"></i>{whisker if label == "Trained" else ""}</div><b>{value:.1f}</b></div>'
        for label, value in (
            ("Trained", block[HEADLINE.name]),
            ("Untrained", block[HEADLINE.untrained]),
            ("Chance", block[HEADLINE.chance]),
        )
    )
    return f'<div class="panel"><h4>{escape(name)}</h4>{bars}</div>'
