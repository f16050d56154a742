"""What a run tells about itself, row by row, as JSON lines.

`runs/<fingerprint>/metrics.jsonl` has one object a step: `step`, `loss`, `lr`, `temperature`, `logit_bias` where the
loss learns one, `source`, `pairs_per_second`, `data_seconds`, how long its micro-batches were waited for; with
clipping `gradient_norm`, of the whole gradient before it (absent where fp16 overflowed: that step is skipped); in
fp16 `loss_scale`, and no row where the loss itself overflowed; now and then the scores of a sample of the validation
pairs (`valid_*`), and `save_seconds`, how long checkpoints held up training since the row before. It outlives the
outputs that DVC deletes; the report in `reports/training/` is made from it, so a resumed run has whole curves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zerovl.files import atomic_write, read_json_lines
from zerovl.log import logger
from zerovl.workspace import RUN_LOG


class MetricsLog:
    """Appends rows; opened for a run that goes on at `start_step`, it drops the rows behind that."""

    def __init__(self, folder: Path, start_step: int, before: Path | None = None) -> None:
        """`before` is the folder of the run that this one goes on from: its rows are the first where there are none."""
        self.path = folder / RUN_LOG
        known = read_json_lines(self.path) or (read_json_lines(before / RUN_LOG) if before else [])
        rows = [row for row in known if row["step"] < start_step]
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
                logger().warning(f"{self.path}: {error}; its rows wait until there is space again")

    def close(self) -> None:
        """Close the file; what still waits for space is lost."""
        self._file.close()
