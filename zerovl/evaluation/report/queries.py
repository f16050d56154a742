"""Write the queries that the gallery chose, with what the model found for them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from zerovl.evaluation.report.gallery import Gallery, Group, ImageQuery, TextQuery

GROUPS: dict[Group, tuple[str, str]] = {
    "drawn": ("Drawn at random", "how it is on the whole"),
    "best": ("Best cases", "the right one first, and surest, from each source in turn"),
    "worst": ("Worst cases", "the right one comes last of all"),
}


def query_sections(gallery: Gallery, pictures: dict[int, str]) -> str:
    """Write both directions, group by group; `pictures` are data URIs by row in the pool."""
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


def text_note(query: TextQuery) -> str:
    """Say which source a caption is of and where its picture came."""
    return f"{query.source} · right picture at {_place(query.place)}"


def _grouped(queries: Sequence[TextQuery | ImageQuery], parts: Sequence[str]) -> str:
    """Put parts under the head of their group, in the order they come in."""
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
        tiles += _tile(pictures[query.image], "right target", f"right one · {_place(query.place)}")
    return (
        f'<div class="query"><div class="ask"><q>{escape(query.caption)}</q><span>{escape(text_note(query))}</span>'
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
        f'<div><div class="ask"><span>right text at {_place(query.place)}</span></div><ol>{items}</ol>{own}</div></div>'
    )


def _tile(uri: str, kind: str, label: str) -> str:
    said = {"right": "right: ", "wrong": "wrong: ", "right target": "right: "}.get(kind, "")
    return (
        f'<figure class="tile {kind}"><div class="frame"><img src="{uri}" alt="{said}{escape(label)}"></div>'
        f"<figcaption>{escape(label)}</figcaption></figure>"
    )


def _place(place: float) -> str:
    return f"rank {place:.0f}" if place == round(place) else f"rank {place:.1f} (tied)"
