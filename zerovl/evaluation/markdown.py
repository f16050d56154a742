"""Write the scores as Markdown, for the model card and the UI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerovl.evaluation.metrics import blocks, cell, further_evaluators, metric_names


def further_tables(metrics: Mapping[str, Any]) -> str:
    """Write a table for each evaluator beside retrieval, with the names that it gives its metrics; else nothing."""
    text = ""
    for evaluator, table in further_evaluators(metrics).items():
        names = metric_names(table)
        lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
        for source, block in blocks(table):
            cells = (cell(block, name) for name in names)
            shown = (f"{value} ({interval})" if interval else value for value, interval in cells)
            lines.append(f"| {source} | " + " | ".join(shown) + " |")
        text += f"\n\n### {evaluator}\n\n95% intervals in brackets.\n\n" + "\n".join(lines)
    return text
