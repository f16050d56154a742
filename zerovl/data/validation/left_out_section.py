"""What the filters of `prepare` left out, as a section of the page: counts, and the first ones of each reason."""

from __future__ import annotations

from base64 import b64encode
from html import escape

from zerovl.data.filtering.left_out import LeftOut
from zerovl.data.validation.statistics import Scan

_PICTURES = 300  # on the page, over all sources; a small picture is some 3 kB
_CAPTION = 120  # characters


def left_out_section(counted: Scan) -> str:
    """Return the section; nothing where no filter left anything out. Every text that came from the data is escaped."""
    if not counted.left_out:
        return ""
    rows, room = [], _PICTURES
    for source, by_split in sorted(counted.left_out.items()):
        for split, reasons in sorted(by_split.items()):
            for reason, tally in sorted(reasons.items()):
                examples = counted.left_out_examples.get((source, split), {}).get(reason, [])[:room]
                room -= len(examples)
                rows.append(
                    f"<tr><td>{escape(source)}</td><td>{escape(split)}</td><td><code>{escape(reason)}</code></td>"
                    f"<td class='number'>{tally.samples:,}</td><td class='number'>{tally.captions:,}</td>"
                    f"<td>{_examples(examples)}</td></tr>"
                )
    head = (
        "<thead><tr><th>Source</th><th>Split</th><th>Filter</th><th class='number'>Pictures</th>"
        "<th class='number'>Captions</th><th>Examples</th></tr></thead>"
    )
    return (
        "<h2>Left out by filters</h2>\n"
        "<p class='quiet'>By <code>prepare.filters</code> of <code>params.yaml</code>. Where fewer pictures than "
        "captions went, the others stay with the captions that are left. All of them: "
        "<code>data/manifest/SOURCE-SPLIT.left-out.parquet</code></p>\n"
        f"{_models(counted)}<div class='wide'><table>{head}<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _models(counted: Scan) -> str:
    return "".join(
        f"<p class='quiet'><code>{escape(name)}</code> by <code>{escape(asked['model'])}</code>, "
        f"digest <code>{escape(asked['digest'])}</code></p>\n"
        for name, asked in counted.models_asked.items()
    )


def _examples(examples: list[LeftOut]) -> str:
    if not examples:
        return ""
    return f"<details open><summary>the first {len(examples)}</summary>{''.join(map(_figure, examples))}</details>"


def _figure(entry: LeftOut) -> str:
    picture = (
        f"<img src='data:image/jpeg;base64,{b64encode(entry.picture).decode()}' alt='{escape(entry.key)}'>"
        if entry.picture
        else ""
    )
    caption = " / ".join(entry.captions)
    shown = caption if len(caption) <= _CAPTION else f"{caption[:_CAPTION]}..."
    return (
        f"<figure class='small'>{picture}<figcaption><code>{escape(entry.key)}</code><br>{escape(entry.detail)}<br>"
        f"<span class='quiet'>{escape(shown)}</span></figcaption></figure>"
    )
