"""What is to be told of a run beside its log: `runs/<fingerprint>/tracking/facts.json`.

Training, evaluation and registration write it one after the other; senders read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.params import Params, as_dict
from zerovl.tracking.base import Results, State, flat

FOLDER = "tracking"  # in the run's
_FILE = "facts.json"
_SECRET = "register.hooks"  # begins the names of parameters that no tracker is told


@dataclass(frozen=True)
class Facts:
    """What is known of a run."""

    project: str
    parameters: Mapping[str, str]
    state: State
    steps: int = 0  # of the whole run
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Params, steps: int, notes: Mapping[str, str]) -> Facts:
        """Return what is known of a run that begins; the hooks stay out, whose addresses are often secrets."""
        told = {name: value for name, value in flat(as_dict(params)) if not name.startswith(_SECRET)}
        return cls(params.register_.name, told, "running", steps, {}, notes)

    @property
    def results(self) -> Results:
        """What is told once it is known."""
        return Results(self.steps, self.scores, self.notes)


def read_facts(run: Path) -> Facts | None:
    """Return what is to be told of the run in a folder, None where it was never tracked.

    Raises `ZeroVLError` where the file is not JSON, or of another version.
    """
    path = run / FOLDER / _FILE
    if not path.is_file():
        return None
    try:
        return Facts(**read_json(path))
    except TypeError as error:  # keys that are missing or unknown, or no keys at all
        raise ZeroVLError(
            f"{path}: not what this version writes ({error}); delete it, and call `zerovl track`"
        ) from None


def write_facts(run: Path, facts: Facts) -> None:
    """Write what is to be told of the run in a folder."""
    write_json(run / FOLDER / _FILE, asdict(facts))


def change_facts(run: Path, **values: Any) -> None:
    """Change some of what is to be told, where there is anything."""
    if facts := read_facts(run):
        write_facts(run, replace(facts, **values))
