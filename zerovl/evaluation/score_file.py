"""Choose the numbers that a person compares, for `dvc metrics` and `dvc exp show`.

    {"RSUM": 550.81, "i2t_r1": 75.17, "t2i_r1": 76.98, "EVALUATOR.METRIC": ..., "loss": 1.187}

with the first metric of each evaluator beside retrieval.

DVC shows a number a column, sorted by name with capitals first, of all files that `dvc.yaml` declares as metrics. So
there is one such file, its first number is the headline, and a row fits a terminal of 100 columns. Everything else,
intervals and digests among it, is in `metrics.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerovl.evaluation.metrics import HEADLINE, blocks, further_evaluators, headline_block, metric_names, value_of
from zerovl.files import read_json

RECALLS = ("i2t_r1", "t2i_r1")
_DIGITS, _LOSS_DIGITS = 2, 4  # after the point


def compared_numbers(metrics: Mapping[str, Any], final_loss: float | None) -> dict[str, float]:
    """Return the numbers by name, the headline first; what there is no number of is left out.

    `metrics` is the content of `metrics.json`, `final_loss` that of the training.
    """
    block = headline_block(metrics)[1]
    found = {
        HEADLINE.label: value_of(block, HEADLINE.name),
        **{name: value_of(block, name) for name in RECALLS},
    }
    for evaluator, table in further_evaluators(metrics).items():
        for name in metric_names(table)[:1]:
            found[f"{evaluator}.{name}"] = value_of(blocks(table)[0][1], name)
    numbers = {name: round(value, _DIGITS) for name, value in found.items() if value is not None}
    return numbers if final_loss is None else numbers | {"loss": round(final_loss, _LOSS_DIGITS)}


def read_final_loss(path: Path) -> float | None:
    """Return the final loss of a training's summary; None where there is no summary, as for a model from elsewhere."""
    return value_of(read_json(path), "final_loss") if path.is_file() else None
