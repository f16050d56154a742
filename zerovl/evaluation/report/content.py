"""Hold what the page shows, and read what other stages left for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerovl.evaluation.holder import Holder
from zerovl.evaluation.metrics import HEADLINE
from zerovl.evaluation.report.gallery import Gallery
from zerovl.files import read_json_lines


@dataclass(frozen=True)
class Curves:
    """What training logged, one (step, value) a point."""

    loss: list[tuple[float, float]]
    score: list[tuple[float, float]]  # the headline metric on a sample of the validation pairs


@dataclass(frozen=True)
class Content:
    """Everything that the page is made from."""

    metrics: dict[str, Any]  # metrics.json
    resamples: int
    curves: Curves
    verdict: dict[str, Any] | None  # of the validation of the data
    gallery: Gallery
    pictures: dict[int, str]  # data URIs by row in the pool
    warnings: tuple[str, ...] = ()  # of the training
    details: Mapping[str, Any] = field(default_factory=dict)  # details.json, by evaluator
    holder: Holder | None = None  # of the alias that the model may take


def read_curves(path: Path) -> Curves:
    """Read the curves of a training log; empty where there is none."""
    rows = read_json_lines(path)
    return Curves(_points(rows, "loss"), _points(rows, f"valid_{HEADLINE.name}"))


def read_verdict(path: Path) -> dict[str, Any] | None:
    """Read the verdict of the validate stage; None where there is none that can be read."""
    try:
        verdict = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return verdict if isinstance(verdict, dict) else None


def is_number(value: Any) -> bool:
    """Tell whether a value of JSON is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _points(rows: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[name])) for row in rows if is_number(row.get(name))]
