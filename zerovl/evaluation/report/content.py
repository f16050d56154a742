"""Hold what the page shows, and read what other stages left for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerovl.evaluation.holder import Holder
from zerovl.evaluation.report.curves import Curves
from zerovl.evaluation.report.gallery import Gallery


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


def read_verdict(path: Path) -> dict[str, Any] | None:
    """Read the verdict of the validate stage; None where there is none that can be read."""
    try:
        verdict = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return verdict if isinstance(verdict, dict) else None
