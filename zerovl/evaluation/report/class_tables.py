"""Write what a classification found beside its metrics: frequent mistakes, accuracy by class, broken pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from zerovl.evaluation import class_sentences
from zerovl.text_format import plural

_CONFUSIONS = 15  # pairs that the page shows
_BROKEN = 10  # broken pictures that it names


def class_tables(details: Mapping[str, Any]) -> str:
    """Write the details of a set of pictures with classes; nothing for those of other evaluators."""
    of_classes = _confusions(details["confusions"]) + _classes(details["classes"]) if "confusions" in details else ""
    return of_classes + _broken(details.get("broken", ()))


def class_note(details: Mapping[str, Any]) -> str:
    """Say how pictures were classified; nothing for other evaluators."""
    said = []
    if templates := details.get("templates"):
        count = plural(len(templates), "caption")
        said.append(f"Classes are named by {count} each, as “{escape(templates[0])}”; no picture was trained on.")
    if probe := details.get("linear_probe"):
        said.append(f"probe: a linear layer on the image tower, fitted to {escape(probe['trained_on'])}.")
    said += map(escape, class_sentences.sentences(details))
    return f"<p>{' '.join(said)}</p>" if said else ""


def _confusions(pairs: Sequence[Mapping[str, Any]]) -> str:
    rows = [(pair["class"], pair["taken_for"], f"{pair['pictures']:,} of {pair['of']:,}") for pair in pairs]
    head = ("Class", "Taken for", "Pictures of the class")
    return f"<h3>Most frequent mistakes</h3>{_table(head, rows[:_CONFUSIONS])}" if rows else ""


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    rows = [(row["class"], f"{row['top1']:.1f}", f"{row['pictures']:,}") for row in classes]
    table = _table(("Class", "top1", "Pictures"), rows)
    count = plural(len(rows), "class", "classes")
    return f"<h3>By class, the lowest first</h3><details><summary>{count}</summary>{table}</details>"


def _broken(pictures: Sequence[Mapping[str, Any]]) -> str:
    rows = [(row["picture"], row["reason"]) for row in pictures]
    return f"<h3>Pictures that cannot be read</h3>{_table(('Picture', 'Why'), rows[:_BROKEN])}" if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'
