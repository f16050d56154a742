"""What a run tells about itself, row by row: JSON lines as the source, DVCLive for DVC's tools.

`runs/<fingerprint>/metrics.jsonl` has one object a step: `step`, `loss`, `lr`, `temperature`, `source`,
`pairs_per_second`; with clipping `gradient_norm`, of the whole gradient before it (absent where fp16
overflowed: that step is skipped); in fp16 `loss_scale`; now and then `valid_rsum`, and `save_seconds`,
how long checkpoints held up training since the row before. It outlives the outputs that DVC deletes; the
report in `reports/training/` is made from it, so a resumed run has whole curves.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from zerovl.files import atomic_write, write_json

FILE = "metrics.jsonl"
PLOTTED = ("loss", "lr", "temperature", "pairs_per_second", "valid_rsum", "gradient_norm", "loss_scale")
MAX_POINTS = 400  # a curve in DVC's plots


class MetricsLog:
    """Appends rows; opened for a run that goes on at `start_step`, it drops the rows behind that."""

    def __init__(self, folder: Path, start_step: int) -> None:
        self.path = folder / FILE
        rows = [row for row in read_rows(self.path) if row["step"] < start_step]
        with atomic_write(self.path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115, closed by `close`
        self._waiting = b""  # rows, or the rest of one, that did not fit on the disk

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; a full disk keeps it for the next call and is said once, so that training goes on."""
        full = bool(self._waiting)
        self._waiting += (json.dumps(row) + "\n").encode()
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            if not full:
                print(f"{self.path}: {error}; its rows wait until there is space again", file=sys.stderr)

    def close(self) -> None:
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Whole rows of a log; a last line cut by a kill is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_report(run_folder: Path, report: Path, summary: dict[str, Any], last_save_seconds: float = 0.0) -> None:
    """Make `reports/training/` from the log: the rows, DVCLive's plots, and a summary in metrics.json.

    `last_save_seconds` is what the checkpoint after the last row cost.
    """
    rows = read_rows(run_folder / FILE)
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    _plots(rows, report)
    shutil.copyfile(run_folder / FILE, report / FILE)
    tail = rows[-max(1, len(rows) // 20) :]
    scores = [row["valid_rsum"] for row in rows if "valid_rsum" in row]
    values: dict[str, Any] = dict(summary)
    if rows:  # a power cut can lose the log of a run whose checkpoint is whole
        values |= {
            "first_loss": rows[0]["loss"],
            "final_loss": fmean(row["loss"] for row in tail),
            "pairs_per_second": fmean(row["pairs_per_second"] for row in rows),
            "save_seconds": round(sum(row.get("save_seconds", 0.0) for row in rows) + last_save_seconds, 3),
        }
    if scores:
        values["valid_rsum"] = scores[-1]
    write_json(report / "metrics.json", values)


def _plots(rows: list[dict[str, Any]], report: Path) -> None:
    try:
        from dvclive import Live
    except ImportError:  # a bare GPU node: metrics.jsonl has the same rows
        return
    every = max(1, len(rows) // MAX_POINTS)
    with Live(str(report), resume=False, dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False) as live:
        for row in rows:
            if row["step"] % every and "valid_rsum" not in row and row is not rows[-1]:
                continue
            live.step = row["step"]
            for name in PLOTTED:
                if name in row:
                    live.log_metric(name, row[name], timestamp=False)
