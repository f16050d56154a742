"""`reports/training/`, made from a run's log: its rows, DVCLive's plots, and a summary in metrics.json."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

from zerovl.files import read_json, read_json_lines, write_json
from zerovl.training import valid_sets
from zerovl.training.learning import tail
from zerovl.training.periodic_evaluation import COLUMN, IN_FOLDS, IN_POOL, SCORES
from zerovl.workspace import METRICS, RUN_LOG

PLOTTED = (
    "loss", "lr", "temperature", "logit_bias", "pairs_per_second", COLUMN, IN_POOL, IN_FOLDS, "gradient_norm",
    "loss_scale",
)  # fmt: skip
MAX_POINTS = 400  # a curve in DVC's plots


def write_report(run_folder: Path, report: Path, summary: dict[str, Any], last_save_seconds: float = 0.0) -> None:
    """Write the report, in place of the one before; `last_save_seconds` is what the last checkpoint cost."""
    rows = read_json_lines(run_folder / RUN_LOG)
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    _plots(rows, report)
    shutil.copyfile(run_folder / RUN_LOG, report / RUN_LOG)
    scores = [row for row in rows if COLUMN in row]
    values: dict[str, Any] = dict(summary)
    if rows:  # a power cut can lose the log of a run whose checkpoint is whole
        values |= {
            "first_loss": rows[0]["loss"],
            "final_loss": fmean(row["loss"] for row in tail(rows)),
            "pairs_per_second": fmean(row["pairs_per_second"] for row in rows),
            "data_seconds": round(sum(row.get("data_seconds", 0.0) for row in rows), 3),
            "save_seconds": round(sum(row.get("save_seconds", 0.0) for row in rows) + last_save_seconds, 3),
        }
    if scores:
        values |= {name: value for name, value in scores[-1].items() if name in SCORES or valid_sets.is_column(name)}
    write_json(report / METRICS, values)


def add_to_report(report: Path, values: dict[str, Any]) -> None:
    """Add values to the summary that `write_report` wrote, in place of those of the same names."""
    if values:
        write_json(report / METRICS, read_json(report / METRICS) | values)


def _plots(rows: list[dict[str, Any]], report: Path) -> None:
    try:
        from dvclive import Live
    except ImportError:  # a bare GPU node: metrics.jsonl has the same rows
        return
    every = max(1, len(rows) // MAX_POINTS)
    with Live(str(report), resume=False, dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False) as live:
        for row in rows:
            if row["step"] % every and COLUMN not in row and row is not rows[-1]:
                continue
            live.step = row["step"]
            for name in (*PLOTTED, *filter(valid_sets.is_column, row)):
                if name in row:
                    live.log_metric(name, row[name], timestamp=False)
