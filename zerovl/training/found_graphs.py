"""The kept graphs that `train.activation_budget` found, written down in the run's folder.

Which graphs are kept decides in what order gradients are added, and so their last bits. What is free
differs from start to start: a run that goes on takes the number it began with, or it would not end
bit for bit as one that was never stopped.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json

FILE = "kept_graphs.json"


@dataclass(frozen=True)
class Purpose:
    """What a number was found for; anything else is another question, with an answer of its own."""

    batch_size: int
    ranks: int
    micro_batch: int
    activation_budget: str

    @property
    def micro_batches(self) -> int:
        return self.batch_size // self.ranks // self.micro_batch


def read_found(folder: Path, purpose: Purpose) -> int | None:
    """The number found before, None where there is none; raises `ZeroVLError` where the file makes no sense."""
    for entry in _entries(folder):
        if all(entry.get(key) == value for key, value in asdict(purpose).items()):
            kept = entry.get("kept_graphs")
            if not isinstance(kept, int) or not 0 <= kept <= purpose.micro_batches:
                raise ZeroVLError(
                    f"{folder / FILE}: kept_graphs {kept!r} is no number from 0 to {purpose.micro_batches}; "
                    "delete the file, and it is found anew"
                )
            return kept
    return None


def write_found(folder: Path, purpose: Purpose, kept: int) -> None:
    """Beside those for other purposes: a run that goes back to its first number of ranks finds its own again."""
    write_json(folder / FILE, {"found": [*_entries(folder), {**asdict(purpose), "kept_graphs": kept}]})


def _entries(folder: Path) -> list[dict[str, Any]]:
    path = folder / FILE
    if not path.is_file():
        return []
    values: Any = read_json(path)
    entries = values.get("found") if isinstance(values, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ZeroVLError(f"{path}: holds no list of what was found; delete it, and kept graphs are found anew")
    return entries
