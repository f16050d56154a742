"""`report.html`: one page that needs nothing but itself, and `gallery.png` for places without HTML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from zerovl.data.split_reader import ANY_PIXELS
from zerovl.evaluation.report import charts
from zerovl.evaluation.report.drawing import Row, Tile, draw
from zerovl.evaluation.report.gallery import Fetch, Gallery, Group, ImageQuery, TextQuery
from zerovl.images import decode_rgb

FULL = 600  # the highest RSUM
PNG_ROWS = 6  # at most
CURVES = ("loss", "valid_rsum")  # fields of `Curves`
GROUPS: dict[Group, tuple[str, str]] = {
    "drawn": ("Drawn at random", "how it is on the whole"),
    "best": ("Best cases", "the right one first, and surest, from each source in turn"),
    "worst": ("Worst cases", "the right one comes last of all"),
}

Block = dict[str, Any]


@dataclass(frozen=True)
class Curves:
    """What training logged, one (step, value) a point."""

    loss: list[tuple[float, float]]
    valid_rsum: list[tuple[float, float]]


@dataclass(frozen=True)
class Content:
    metrics: dict[str, Any]  # metrics.json
    resamples: int
    curves: Curves
    verdict: dict[str, Any] | None  # reports/validation/verdict.json
    gallery: Gallery
    pictures: dict[int, str]  # data URIs by row in the pool


def read_curves(path: Path) -> Curves:
    """Curves of a `metrics.jsonl`; empty where there is none."""
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in CURVES}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break  # a last line cut by a kill
        for name, points in curves.items():
            if _is_number(row.get(name)):
                points.append((float(row["step"]), float(row[name])))
    return Curves(**curves)


def read_verdict(path: Path) -> dict[str, Any] | None:
    """The verdict of the validate stage; None where there is none that can be read."""
    try:
        verdict = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return verdict if isinstance(verdict, dict) else None


def render(content: Content) -> str:
    """The whole page. Everything that users supplied is escaped."""
    style = files("zerovl.evaluation.report").joinpath("report.css").read_text(encoding="utf-8")
    overall = content.metrics["overall"]
    body = "".join(
        [
            _headline(overall, len(content.metrics["sources"])),
            _verdict(content.verdict),
            _curves(content.curves),
            _scores(content.metrics, content.resamples),
            _gallery(content.gallery, content.pictures),
            _footer(content.metrics, content.resamples),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>RSUM {overall['rsum']:.1f} · ZeroVL evaluation</title>"
        f"<style>\n{style}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def draw_gallery(gallery: Gallery, fetch: Fetch, overall: Block, path: Path) -> None:
    """The text queries that were drawn at random, with their first five pictures."""
    rows = []
    for query in [query for query in gallery.text_queries if query.group == "drawn"][:PNG_ROWS]:
        tiles = [
            Tile(
                decode_rgb(fetch(found.image), ANY_PIXELS),
                "right" if found.right else "wrong",
                f"{place} · {found.score:.2f}",
            )
            for place, found in enumerate(query.found, 1)
        ]
        rows.append(Row(f"“{query.caption}”", _text_note(query), tiles))
    title = f"RSUM {overall['rsum']:.1f}: queries drawn at random"
    subtitle = (
        f"{overall['images']:,} validation pictures, {overall['captions']:,} captions; "
        f"untrained {overall['untrained_rsum']:.1f}, chance {overall['chance_rsum']:.1f}, best possible {FULL}"
    )
    draw(rows, title, subtitle, path)


def _headline(overall: Block, sources: int) -> str:
    facts = [
        ("95% interval", f"{overall['rsum_low']:.1f} to {overall['rsum_high']:.1f}"),
        ("over untrained", _times(overall["rsum_over_untrained"])),
        ("untrained", f"{overall['untrained_rsum']:.1f}"),
        ("chance", f"{overall['chance_rsum']:.1f}"),
        ("pictures", f"{overall['images']:,}"),
        ("captions", f"{overall['captions']:,}"),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    low, high = overall["rsum_low"], overall["rsum_high"]
    return (
        f'<header><p class="kicker">ZeroVL evaluation · retrieval over {_plural(sources, "source")}</p>'
        f'<div class="hero"><h1>{overall["rsum"]:.1f}<small>RSUM of {FULL}</small></h1>'
        f'<dl class="facts">{items}</dl></div>'
        '<div class="ruler" role="img" aria-label="RSUM on a scale from 0 to 600">'
        f'<div class="track"></div><div class="fill" style="width:{_percent(overall["rsum"])}"></div>'
        f'<div class="band" style="left:{_percent(low)};width:{_percent(high - low)}"></div>'
        f'<div class="tick" style="left:{_percent(overall["chance_rsum"])}"></div>'
        f'<span class="name" style="left:min({_percent(overall["chance_rsum"])}, 80%)">chance</span>'
        f'<span class="name end">{FULL}</span></div></header>'
    )


def _verdict(verdict: dict[str, Any] | None) -> str:
    """The verdict of the data, from whatever of `passed` and `rules` the file has."""
    if verdict is None:
        return (
            '<div class="verdict"><span class="sign">&ndash;</span>'
            "<div>The data were not validated: no verdict was found.</div></div>"
        )
    rules = [rule for rule in verdict.get("rules", []) if isinstance(rule, dict)]
    broken = [rule for rule in rules if rule.get("passed") is False]
    passed = verdict.get("passed", not broken) is True
    text = "Data validation passed" if passed else "Data validation failed"
    text += f", {len(rules) - len(broken)} of {_plural(len(rules), 'rule')} kept." if rules else "."
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


def _curves(curves: Curves) -> str:
    panels = []
    if curves.loss:
        smoothed = charts.smooth(curves.loss, len(curves.loss) // 30)
        summary = f"Training loss from {smoothed[0][1]:.3g} to {smoothed[-1][1]:.3g}" if smoothed else "Training loss"
        lines = [charts.Line(curves.loss, "raw"), charts.Line(smoothed, "main")]
        chart = charts.line_chart(lines, "step", summary, from_zero=False)
        panels.append((chart, "Loss", "each step, and smoothed"))
    if curves.valid_rsum:
        line = charts.Line(curves.valid_rsum, "main", dots=len(curves.valid_rsum) <= 60)
        summary = f"RSUM during training, last {curves.valid_rsum[-1][1]:.1f}"
        chart = charts.line_chart([line], "step", summary, from_zero=True)
        panels.append((chart, "RSUM during training", "on a fixed sample of validation pairs, a pool of its own"))
    figures = "".join(
        f'<figure class="panel"><figcaption>{title} <span>{note}</span></figcaption>{chart}</figure>'
        for chart, title, note in panels
        if chart
    )
    return f'<section><h2>Learning</h2><div class="charts">{figures}</div></section>' if figures else ""


def _scores(metrics: dict[str, Any], resamples: int) -> str:
    blocks = [("All sources", metrics["overall"]), *metrics["sources"].items()]
    rows = "".join(_score_row(name, block, overall=not place) for place, (name, block) in enumerate(blocks))
    recalls = "".join(f"<th>R@{k}</th>" for k in (1, 5, 10) * 2)
    bars = "".join(_bars(name, block) for name, block in blocks)
    return (
        "<section><h2>Scores</h2><p>Share of queries, in percent, with a right answer among the first 1, 5 and 10. "
        "RSUM is their sum. A source is searched alone; all sources are one large pool, which is harder.</p>"
        '<div class="scroll"><table><thead><tr><th></th><th colspan="4"></th><th colspan="3">picture → text</th>'
        '<th colspan="3">text → picture</th><th colspan="2"></th></tr><tr><th>Source</th><th>RSUM</th>'
        f"<th>Untrained</th><th>Chance</th><th>&times;</th>{recalls}<th>Pictures</th><th>Captions</th></tr></thead>"
        f'<tbody>{rows}</tbody></table></div><div class="bars">{bars}</div></section>'
    )


def _score_row(name: str, block: Block, *, overall: bool) -> str:
    recalls = "".join(f"<td>{block[f'{way}_r{k}']:.1f}</td>" for way in ("i2t", "t2i") for k in (1, 5, 10))
    return (
        f'<tr{" class=overall" * overall}><th scope="row">{escape(name)}</th>'
        f'<td class="rsum">{block["rsum"]:.1f}<span class="range">{block["rsum_low"]:.1f} to '
        f"{block['rsum_high']:.1f}</span></td><td>{block['untrained_rsum']:.1f}</td>"
        f"<td>{block['chance_rsum']:.1f}</td><td>{_times(block['rsum_over_untrained'])}</td>{recalls}"
        f"<td>{block['images']:,}</td><td>{block['captions']:,}</td></tr>"
    )


def _bars(name: str, block: Block) -> str:
    low, high = block["rsum_low"], block["rsum_high"]
    whisker = f'<u style="left:{_percent(low)};width:{_percent(high - low)}"></u>'
    bars = "".join(
        f'<div class="bar{" model" * (label == "Trained")}"><span>{label}</span><div class="lane">'
        f'<i style="width:{_percent(value)}"></i>{whisker if label == "Trained" else ""}</div><b>{value:.1f}</b></div>'
        for label, value in (
            ("Trained", block["rsum"]),
            ("Untrained", block["untrained_rsum"]),
            ("Chance", block["chance_rsum"]),
        )
    )
    return f'<div class="panel"><h4>{escape(name)}</h4>{bars}</div>'


def _gallery(gallery: Gallery, pictures: dict[int, str]) -> str:
    sections = []
    if gallery.text_queries:
        parts = _grouped(gallery.text_queries, [_text_query(query, pictures) for query in gallery.text_queries])
        intro = "A caption, and the five pictures of all sources that the model puts first. ✓ and a thick green frame "
        intro += "mark the right one, ✗ and a thin red frame the others. If the right one came later, it stands last."
        sections.append(f"<section><h2>Text → picture</h2><p>{intro}</p>{parts}</section>")
    if gallery.image_queries:
        parts = _grouped(gallery.image_queries, [_image_query(query, pictures) for query in gallery.image_queries])
        intro = "A picture, and the five texts that the model puts first. Equal texts of several pictures tie and are "
        intro += "shown once."
        sections.append(f"<section><h2>Picture → text</h2><p>{intro}</p>{parts}</section>")
    return "".join(sections)


def _grouped(queries: Sequence[TextQuery | ImageQuery], parts: Sequence[str]) -> str:
    """Parts under the head of their group, in the order they come in."""
    out = []
    for group, (title, note) in GROUPS.items():
        its = [part for query, part in zip(queries, parts, strict=True) if query.group == group]
        if its:
            out.append(f"<h3>{title} · {note}</h3>{''.join(its)}")
    return "".join(out)


def _text_query(query: TextQuery, pictures: dict[int, str]) -> str:
    tiles = "".join(
        _tile(pictures[found.image], "right" if found.right else "wrong", f"{place} · {found.score:.2f}")
        for place, found in enumerate(query.found, 1)
    )
    if not any(found.right for found in query.found):
        tiles += _tile(pictures[query.image], "right target", f"right one · {_rank(query.rank)}")
    return (
        f'<div class="query"><div class="ask"><q>{escape(query.caption)}</q><span>{escape(_text_note(query))}</span>'
        f'</div><div class="tiles">{tiles}</div></div>'
    )


def _image_query(query: ImageQuery, pictures: dict[int, str]) -> str:
    items = "".join(
        f'<li class="{"right" if found.right else "wrong"}"><div>{escape(found.text)}</div>'
        f"<span>{f'&times;{found.copies} · ' if found.copies > 1 else ''}{found.score:.2f}</span></li>"
        for found in query.found
    )
    own = ""
    if not any(found.right for found in query.found):
        texts = "; ".join(f"“{escape(text)}”" for text in query.captions)
        own = f'<p class="own">Right would be {texts}</p>'
    return (
        f'<div class="query asked">{_tile(pictures[query.image], "", query.source)}'
        f'<div><div class="ask"><span>right text at {_rank(query.rank)}</span></div><ol>{items}</ol>{own}</div></div>'
    )


def _tile(uri: str, kind: str, label: str) -> str:
    said = {"right": "right: ", "wrong": "wrong: ", "right target": "right: "}.get(kind, "")
    return (
        f'<figure class="tile {kind}"><div class="frame"><img src="{uri}" alt="{said}{escape(label)}"></div>'
        f"<figcaption>{escape(label)}</figcaption></figure>"
    )


def _footer(metrics: dict[str, Any], resamples: int) -> str:
    return (
        "<footer><p>Pictures are counted once by id; a query counts when any right item is among the first k. Items "
        "with the same score stand in random order, and a query counts with its expected value. The interval comes "
        f"from {resamples:,} bootstrap resamples of pictures with their captions; it does not cover the chance of "
        "another training run. Untrained: the same architecture with random weights. Chance: the exact expectation "
        "of a random order.</p>"
        f"<p>Model <code>{escape(metrics['model_digest'])}</code><br>"
        f"Evaluation data <code>{escape(metrics['evaluation_digest'])}</code></p></footer>"
    )


def _text_note(query: TextQuery) -> str:
    return f"{query.source} · right picture at {_rank(query.rank)}"


def _rank(rank: float) -> str:
    return f"rank {rank:.0f}" if rank == round(rank) else f"rank {rank:.1f} (tied)"


def _times(ratio: float | None) -> str:
    return "&ndash;" if ratio is None else f"{ratio:.1f}&times;"


def _percent(rsum: float) -> str:
    return f"{100 * min(max(rsum, 0.0), FULL) / FULL:.2f}%"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _value(value: Any) -> str:
    return charts.number(value) if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
