"""What the sizing of a run decided, written down in the run's folder: a run that goes on takes it from there.

The micro-batch (`train.micro_batch: auto`) shapes the weights, since mixup pairs partners inside it. Which graphs are
kept (`machine.activation_budget`) can change last bits on a GPU, where a forward pass that is compiled without its
backward may round otherwise. What is free differs from start to start: found again, a run would not end bit for bit as
one that was never stopped.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.sizing.footprint import BatchLayout

KEPT_GRAPHS_FILE = "kept_graphs.json"
MICRO_BATCH_FILE = "micro_batch.json"


@dataclass(frozen=True)
class MicroBatchDecision:
    """A micro-batch, m, and the sentence that says why this one."""

    micro_batch: int
    why: str


@dataclass(frozen=True)
class Purpose:
    """What a number of kept graphs was decided for; anything else is another question, with an answer of its own."""

    batch_size: int
    ranks: int
    micro_batch: int
    activation_budget: str

    @property
    def layout(self) -> BatchLayout:
        """What graphs are to be kept of: n micro-batches a rank."""
        return BatchLayout(self.batch_size, self.ranks, self.micro_batch, 0)


def read_kept_graphs(folder: Path, purpose: Purpose) -> int | None:
    """Return the number decided before, None where there is none; raises `ZeroVLError` for a file without sense."""
    path = folder / KEPT_GRAPHS_FILE
    for entry in _entries(path):
        if all(entry.get(key) == value for key, value in asdict(purpose).items()):
            kept = entry.get("kept_graphs")
            if not isinstance(kept, int) or not 0 <= kept <= purpose.layout.micro_batches:
                raise ZeroVLError(
                    f"{path}: kept_graphs {kept!r} is not a number from 0 to {purpose.layout.micro_batches}; "
                    "delete the file, and it is found again"
                )
            return kept
    return None


def write_kept_graphs(folder: Path, purpose: Purpose, kept: int) -> None:
    """Add a number to those for other purposes: a run that goes back to its first number of ranks finds its own."""
    path = folder / KEPT_GRAPHS_FILE
    write_json(path, {"found": [*_entries(path), {**asdict(purpose), "kept_graphs": kept}]})


def read_micro_batch(folder: Path, local_batch: int) -> MicroBatchDecision | None:
    """Return what the run decided before, None where it has not; raises `ZeroVLError` where it fits no longer."""
    path = folder / MICRO_BATCH_FILE
    if not path.is_file():
        return None
    values: Any = read_json(path)
    size = values.get("micro_batch") if isinstance(values, dict) else None
    if not isinstance(size, int) or size < 1:
        raise ZeroVLError(f"{path}: holds no micro_batch; delete it, and it is found again")
    if local_batch % size:
        raise ZeroVLError(
            f"{path}: this run trains with micro-batches of {size}, which do not divide {local_batch} pairs a rank; "
            "go on with the number of ranks that it began with, or set train.micro_batch to begin a new run"
        )
    return MicroBatchDecision(size, "found when the run began")


def write_micro_batch(folder: Path, decision: MicroBatchDecision) -> None:
    """Write down the run's micro-batch."""
    write_json(folder / MICRO_BATCH_FILE, {"micro_batch": decision.micro_batch, "why": decision.why})


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    values: Any = read_json(path)
    entries = values.get("found") if isinstance(values, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ZeroVLError(f"{path}: holds no list of what was found; delete it, and kept graphs are found again")
    return entries
