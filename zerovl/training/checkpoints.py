"""Checkpoints of a run: whole or absent, readable without pickles.

`runs/<fingerprint>/checkpoints/step-00000100/` holds `state.safetensors` (weights as `model.<name>`,
AdamW's moments as `exp_avg.<name>`, `exp_avg_sq.<name>`, `count.<name>`) and `state.json` (step,
loss scale). A folder is written aside, synced and then renamed, so a name without `.part` is whole.
Order, augmentation, dropout and mixup are pure functions of (seed, step): no random state to save.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sync_folder, write_json
from zerovl.model.bundle import load_weights, read_weights
from zerovl.model.dual_encoder import DualEncoder

_PREFIX = "step-"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainingState:
    """What a step changes; `step` counts the steps that are done."""

    model: DualEncoder
    optimiser: torch.optim.AdamW
    scaler: torch.amp.GradScaler

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self._learned():
            if parameter not in self.optimiser.state:
                continue  # the optimiser has not moved it yet
            state = self.optimiser.state[parameter]
            tensors |= {f"{moment}.{name}": state[moment] for moment in _MOMENTS}
            tensors[f"count.{name}"] = torch.as_tensor(state["step"])
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def restore(self, tensors: dict[str, Tensor], scaler: dict[str, Any], origin: str) -> None:
        prefix = "model."
        weights = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        states: dict[Tensor, dict[str, Tensor]] = {}
        for name, parameter in self._learned():
            keys = {key: f"{key}.{name}" for key in (*_MOMENTS, "count")}
            lacking = [key for key in keys.values() if key not in tensors]
            if len(lacking) == len(keys):
                continue  # the optimiser had not moved it when the checkpoint was written
            if lacking:
                raise ZeroVLError(f"{origin}: lacks {lacking}; delete this checkpoint, the one before is used")
            state = {moment: torch.zeros_like(parameter) for moment in _MOMENTS}
            for moment in _MOMENTS:
                # Copied into torch's own memory: vectorised sums may depend on alignment.
                state[moment].copy_(tensors[keys[moment]])
            state["step"] = tensors[keys["count"]].clone().to(parameter.device)  # where fused AdamW keeps it
            states[parameter] = state
        load_weights(self.model, weights, origin)  # refuses before it changes anything
        self.optimiser.state.clear()
        self.optimiser.state.update(states)
        self.scaler.load_state_dict(scaler)

    def _learned(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad)


class Checkpoints:
    """The last `keep` checkpoints of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        names = (path.name for path in self.folder.iterdir() if path.name.startswith(_PREFIX))
        return sorted(int(name.removeprefix(_PREFIX)) for name in names if name.removeprefix(_PREFIX).isdigit())

    def path(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:08d}"

    def save(self, state: TrainingState, step: int) -> None:
        """Write the checkpoint of `step`, then drop old ones; raises OSError or SafetensorError, harming none."""
        final = self.path(step)
        aside = self.folder / f".{final.name}.part"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            save_file(state.tensors(), aside / "state.safetensors")
            with open(aside / "state.safetensors", "rb") as file:
                os.fsync(file.fileno())
            write_json(aside / "state.json", {"step": step, "scaler": state.scaler.state_dict()})
            sync_folder(aside)
            shutil.rmtree(final, ignore_errors=True)  # of the same step: it could not be read, or holds the same
            aside.rename(final)
            sync_folder(self.folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        known = self.steps()
        unreadable = [other for other in known if other > step]  # restoring passed them over
        for old in [*[other for other in known if other <= step][: -self.keep], *unreadable]:
            shutil.rmtree(self.path(old), ignore_errors=True)

    def clear_leftovers(self) -> None:
        """Remove what a killed process was writing."""
        for aside in self.folder.glob(f".{_PREFIX}*.part"):
            shutil.rmtree(aside, ignore_errors=True)

    def try_save(self, state: TrainingState, step: int, report: Callable[[str], None]) -> bool:
        """As `save`, but a full disk is reported and training goes on with the last good checkpoint."""
        try:
            self.save(state, step)
        except (OSError, SafetensorError) as error:
            last = f"step {self.steps()[-1]} is the last good one" if self.steps() else "there is none yet"
            report(f"checkpoint of step {step} could not be written to {self.folder}: {error}; {last}; free some space")
            return False
        return True

    def restore_newest(self, state: TrainingState, report: Callable[[str], None]) -> int:
        """Load the newest readable checkpoint into `state`; returns its step, 0 where there is none."""
        for step in reversed(self.steps()):
            try:
                self.restore(state, step)
            except ZeroVLError as error:
                report(f"checkpoint of step {step} is passed over: {error}")
                continue
            return step
        return 0

    def restore(self, state: TrainingState, step: int) -> None:
        path = self.path(step)
        values = read_json(path / "state.json")
        if "scaler" not in values:
            raise ZeroVLError(f"{path / 'state.json'}: lacks 'scaler'; delete this checkpoint")
        state.restore(read_weights(path / "state.safetensors"), values["scaler"], str(path))
