"""Write the queries on which subjects disagree most, with the rank that each gives the right item."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from zerovl.comparison.shown_queries import ShownQueries, ShownQuery

_TITLES = {"t2i": "Text → picture", "i2t": "Picture → text"}


def query_section(queries: ShownQueries, labels: Sequence[str]) -> str:
    """Write both directions, grouped by who finds the right item first; nothing where no queries are shared."""
    if not queries.places:
        return ""
    parts = []
    for direction, title in _TITLES.items():
        for place, subject in enumerate(queries.places):
            its = [
                shown for shown in queries.queries if (shown.query.direction, shown.query.best) == (direction, place)
            ]
            if its:
                head = f"{title} · {escape(labels[subject])} finds it first"
                parts.append(f"<h3>{head}</h3>" + "".join(_query(shown, queries.places, labels) for shown in its))
    text = f"Where the right item stands for each, in its source alone; the widest apart {escape(queries.where)}."
    if not parts:
        text = f"None {escape(queries.where)} is ranked differently."
    return f"<section><h2>Where they disagree most</h2><p>{text}</p>{''.join(parts)}</section>"


def _query(shown: ShownQuery, places: Sequence[int], labels: Sequence[str]) -> str:
    query = shown.query
    ranks = "".join(
        f'<li class="s{subject} {"right" if rank < 1.5 else ""}"><span>{escape(labels[subject])}</span>'
        f"<b>{_rank(rank)}</b></li>"
        for subject, rank in zip(places, query.ranks, strict=True)
    )
    what = "asks" if query.direction == "t2i" else "right"
    texts = "".join(f"<q>{escape(text)}</q>" for text in shown.captions) or '<q class="muted">no caption stored</q>'
    source = escape(query.source)
    return (
        f'<div class="query pair"><figure class="tile"><div class="frame"><img src="{shown.picture}" '
        f'alt="picture {query.image_id} of {source}"></div><figcaption>{source}</figcaption>'
        f'</figure><div><div class="ask {what}">{texts}</div><ul class="ranks">{ranks}</ul></div></div>'
    )


def _rank(rank: float) -> str:
    return f"rank {rank:.0f}" if rank == round(rank) else f"rank {rank:.1f} (tied)"
