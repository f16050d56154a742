"""Write the scores as Markdown, for the model card and the UI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from zerovl.evaluation import class_sentences
from zerovl.evaluation.metrics import blocks, cell, further_evaluators, metric_names

_CONFUSIONS = 5  # pairs of classes that are named
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~])")


def further_tables(metrics: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Write a table for each evaluator beside retrieval, with the names that it gives its metrics; else nothing.

    Below that of a classified set stand the pairs of classes that it confuses most. `details` are the content of
    `details.json`, by evaluator; empty where there is none.
    """
    text = ""
    for evaluator, table in further_evaluators(metrics).items():
        names = metric_names(table)
        lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
        for source, block in blocks(table):
            cells = (cell(block, name) for name in names)
            shown = (f"{value} ({interval})" if interval else value for value, interval in cells)
            lines.append(f"| {source} | " + " | ".join(shown) + " |")
        text += f"\n\n### {evaluator}\n\n95% intervals in brackets.\n\n" + "\n".join(lines)
        for sentence in class_sentences.sentences(details.get(evaluator) or {}):
            text += f"\n\n{_plain(sentence)}"
        text += _confusions((details.get(evaluator) or {}).get("confusions") or ())
    return text


def _confusions(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The pairs of classes of which most pictures are taken for the other; nothing where there are none."""
    if not pairs:
        return ""
    lines = ["| class | most often taken for | pictures of the class |", "|---|---|---:|"]
    for pair in pairs[:_CONFUSIONS]:
        names = _plain(pair["class"]), _plain(pair["taken_for"])
        lines.append(f"| {' | '.join(names)} | {pair['pictures']:,} of {pair['of']:,} |")
    return "\n\n" + "\n".join(lines)


def _plain(name: str) -> str:
    """A name of a class on one line, without a meaning in Markdown."""
    return _MARKUP.sub(r"\\\1", " ".join(name.split()))
