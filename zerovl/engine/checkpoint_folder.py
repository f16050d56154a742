"""The folder of a run's checkpoints: their names, what is kept of them, and what each says of itself.

`checkpoints/step-00000100/` holds a file a rank and `state.json`. It is written as `.step-00000100.part/` and renamed
when all of it is on disk, so a name without `.part` is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sync_folder, write_json

_PREFIX = "step-"
STATE_FILE = "state.json"


@dataclass(frozen=True)
class SavedOn:
    """By how many ranks a checkpoint was written, with how many threads each, and how sharded weights were gathered.

    Older checkpoints do not say the last two.
    """

    ranks: int
    threads: int | None
    gathers: str | None = None  # "float32", "low"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of `step` is, or would be, in a run's folder of checkpoints."""
    return folder / f"{_PREFIX}{step:08d}"


def saved_steps(folder: Path) -> list[int]:
    """Steps of the whole checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    names = (path.name.removeprefix(_PREFIX) for path in folder.iterdir() if path.name.startswith(_PREFIX))
    return sorted(int(name) for name in names if name.isdigit())


def saved_on(path: Path) -> SavedOn | None:
    """Return what a checkpoint was written on; None where there is none."""
    file = path / STATE_FILE
    if not file.is_file():
        return None
    values = read_json(file)
    return SavedOn(int(values["world_size"]), values.get("threads"), values.get("gathers"))


def read_values(path: Path, step: int) -> dict[str, Any]:
    """Return what `state.json` of a checkpoint holds; raises `ZeroVLError` where it is not whole or not of `step`."""
    file = path / STATE_FILE
    values = read_json(file)
    if not isinstance(values, dict) or values.get("step") != step:
        raise ZeroVLError(f"{file}: is not of step {step}; delete this checkpoint")
    for key, kind in (("number", int), ("world_size", int), ("scaler", dict)):
        if not isinstance(values.get(key), kind):
            raise ZeroVLError(f"{file}: {key!r} is {values.get(key)!r}, not {kind.__name__}; delete this checkpoint")
    return values


@dataclass(frozen=True)
class CheckpointFolder:
    """The last `keep` checkpoints and every `keep_every`-th (0: none); what changes it is called on rank 0 alone."""

    path: Path
    keep: int
    keep_every: int

    def aside(self, step: int) -> Path:
        """Return where the checkpoint of `step` is while it is written."""
        return self.path / f".{_PREFIX}{step:08d}.part"

    def complete(self, step: int, names: Iterable[str], values: dict[str, Any]) -> None:
        """Give what was written aside its name; `names` are the ranks' files. Raises OSError where one is not there."""
        aside, final = self.aside(step), checkpoint_path(self.path, step)
        if absent := [name for name in names if not (aside / name).is_file()]:
            raise OSError(f"other ranks wrote {absent} where rank 0 does not see them; let all nodes share runs/")
        write_json(aside / STATE_FILE, values)
        sync_folder(aside)
        if final.exists():  # of the same step, and could not be read
            self._remove(step)
        aside.rename(final)
        sync_folder(self.path)

    def give_up(self, step: int) -> None:
        """Remove what was written aside."""
        shutil.rmtree(self.aside(step), ignore_errors=True)

    def clear_leftovers(self) -> None:
        """Remove what a killed run was writing."""
        for aside in self.path.glob(f".{_PREFIX}*.part"):
            shutil.rmtree(aside, ignore_errors=True)

    def drop_old(self, step: int) -> None:
        """Remove what need not be kept beside the checkpoint of `step`, the newest."""
        known = saved_steps(self.path)
        old = [other for other in known if other <= step][: -self.keep]
        for other in (other for other in old if not self._stays(other)):
            self._remove(other)
        for other in (other for other in known if other > step):  # restoring passed them over; they may be repaired
            aside = self.path / f"passed-over-{other:08d}"
            shutil.rmtree(aside, ignore_errors=True)
            with suppress(OSError):
                checkpoint_path(self.path, other).rename(aside)

    def _remove(self, step: int) -> None:
        """Take the name away first: a kill in between must not leave half a checkpoint under it."""
        gone = self.path / f".{_PREFIX}{step:08d}.old.part"
        shutil.rmtree(gone, ignore_errors=True)
        with suppress(OSError):  # what stays costs space alone, and the next start clears it
            checkpoint_path(self.path, step).rename(gone)
            shutil.rmtree(gone)

    def _stays(self, step: int) -> bool:
        if not self.keep_every:
            return False
        try:
            return bool(read_json(checkpoint_path(self.path, step) / STATE_FILE)["number"] % self.keep_every == 0)
        except (ZeroVLError, KeyError, TypeError):
            return False  # nothing could resume from it
