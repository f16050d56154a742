"""Say where a training waited for its data: a faster step would have changed nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zerovl.engine.frozen_features import cached_sides
from zerovl.params import Params

MUCH = 0.05  # of the steps' time
FEW_STEPS = 20  # of which the first, that starts the workers, is a large part


def found(params: Params, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sentence for a run with these rows in its log; empty where it hardly waited."""
    known = [row for row in rows if "data_seconds" in row and row["pairs_per_second"]][1:]
    if len(known) < FEW_STEPS:
        return []
    batch, workers = params.train.batch_size, params.machine.loader_workers
    whole = sum(batch / row["pairs_per_second"] for row in known)
    waited = min(whole, sum(row["data_seconds"] for row in known))
    if waited <= MUCH * whole:
        return []
    faster = "pictures of fewer pixels (prepare.max_side) are decoded faster"
    if "image" in cached_sides(params):  # no picture is decoded
        faster = "its pictures are read as features in runs/features, from memory where it has room for that folder"
    return [
        f"{waited / whole:.0%} of the steps' time went by waiting for data ({waited:.1f} of {whole:.1f} s): raise "
        f"machine.loader_workers (it is {workers} a rank) while there are cores; {faster}"
    ]
