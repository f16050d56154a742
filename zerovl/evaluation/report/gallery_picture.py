"""Draw `gallery.png`, for places that show no HTML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerovl.data.split_reader import ANY_PIXELS
from zerovl.evaluation.metrics import HEADLINE, headline_block, headline_title
from zerovl.evaluation.report.drawing import Row, Tile, draw
from zerovl.evaluation.report.gallery import Gallery
from zerovl.evaluation.report.queries import text_note
from zerovl.evaluation.report.thumbnails import Fetch
from zerovl.images import decode_rgb

MAX_ROWS = 6


def draw_gallery(gallery: Gallery, fetch: Fetch, metrics: Mapping[str, Any], path: Path) -> None:
    """Draw the text queries that were chosen at random, with their first five pictures."""
    rows = []
    for query in [query for query in gallery.text_queries if query.group == "drawn"][:MAX_ROWS]:
        tiles = [
            Tile(
                decode_rgb(fetch(found.image), ANY_PIXELS),
                "right" if found.right else "wrong",
                f"{place} · {found.score:.2f}",
            )
            for place, found in enumerate(query.found, 1)
        ]
        rows.append(Row(f"“{query.caption}”", text_note(query), tiles))
    block = headline_block(metrics)[1]
    title = f"{headline_title(metrics)}: {block[HEADLINE.name]:.1f}. Queries drawn at random"
    subtitle = (
        f"95% interval {block[HEADLINE.low]:.1f} to {block[HEADLINE.high]:.1f}; "
        f"{block['images']:,} validation pictures, {block['captions']:,} captions; "
        f"untrained {block[HEADLINE.untrained]:.1f}, chance {block[HEADLINE.chance]:.1f}, "
        f"best possible {HEADLINE.maximum:.0f}"
    )
    draw(rows, title, subtitle, path)
