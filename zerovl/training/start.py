"""Where a run starts from, if not from the towers' own weights: a bundle, or a checkpoint of another run.

`train.init_from` takes the weights alone: a bundle's folder, or RUN@STEP. `train.continue_from` takes a checkpoint
whole, RUN@STEP, with the optimiser's moments and the step to go on with. RUN is the name of a folder in `runs/`, or
its beginning; without @STEP its newest checkpoint is meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from zerovl.bundle_files import CONFIG, WEIGHTS
from zerovl.engine.checkpoint_files import StoredTensors
from zerovl.engine.checkpoint_folder import checkpoint_path, saved_steps
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sha256_file, sha256_json
from zerovl.model import bundle
from zerovl.model.architecture import load_architecture
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import Params
from zerovl.workspace import RUN_DESCRIPTION, Workspace

TOKENIZER_FOLDER = "tokenizer"
_BIAS = "logit_bias"
_WEIGHTS = "model."  # what the names of weights begin with in a checkpoint


class Start(Protocol):
    """Weights that a run starts from, with the tokenizer whose ids their word embeddings go by."""

    @property
    def tokenizer(self) -> Path | None:
        """Folder of the tokenizer; None where the weights came without."""

    @property
    def digest(self) -> str:
        """A name for the content, for the run's fingerprint."""

    def load_into(self, model: DualEncoder) -> None:
        """Fill the model, whole and on the CPU; raises `ZeroVLError` for weights of other towers."""


@dataclass(frozen=True)
class BundleStart:
    """A model as training or `zerovl registry pull` writes it."""

    folder: Path

    @property
    def tokenizer(self) -> Path | None:
        """The bundle's folder, which holds its tokenizer."""
        return self.folder

    @property
    def digest(self) -> str:
        """The digest of the weights."""
        return sha256_file(self.folder / WEIGHTS)

    def load_into(self, model: DualEncoder) -> None:
        """Fill the model with the bundle's weights."""
        _check_pooling(load_architecture(self.folder).pooling, model, str(self.folder))
        weights = bundle.read_weights(self.folder / WEIGHTS)
        bundle.load_weights(model, _for_its_loss(weights, model), str(self.folder))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a run. One that is no longer there still tells which weights a run began with."""

    run: Path  # folder in runs/
    step: int

    @property
    def reference(self) -> str:
        """RUN@STEP."""
        return f"{self.run.name}@{self.step}"

    @property
    def path(self) -> Path:
        """The checkpoint's folder."""
        return checkpoint_path(self.run / "checkpoints", self.step)

    def require(self, key: str) -> None:
        """Raise `ZeroVLError` that lists the run's checkpoints where this one is not among them (any more)."""
        steps = saved_steps(self.run / "checkpoints")
        if self.step not in steps:
            raise ZeroVLError(
                f"train.{key}: {self.reference}: the run {self.run.name} has checkpoints of the steps "
                f"{', '.join(map(str, steps)) or 'none'}; name one of them, as "
                f"{self.run.name}@{max(steps, default=100)}"
            )

    @property
    def description(self) -> dict[str, Any]:
        """What the run's fingerprint covers."""
        found: dict[str, Any] = read_json(self.run / RUN_DESCRIPTION)
        return found

    @property
    def tokenizer(self) -> Path | None:
        """The copy that the run keeps; None in runs of before it did."""
        folder = self.run / TOKENIZER_FOLDER
        return folder if folder.is_dir() else None

    @property
    def digest(self) -> str:
        """A name for the content: a run's checkpoint of a step is always the same."""
        return sha256_json([self.run.name, self.step])

    def load_into(self, model: DualEncoder) -> None:
        """Fill the model with the checkpoint's weights, whatever number of ranks wrote it."""
        _check_pooling(self.description["model"]["text_tower"].get("pooling", "first"), model, self.reference)
        stored = StoredTensors(self.path)
        weights = {
            name.removeprefix(_WEIGHTS): torch.empty(found.size, dtype=found.properties.dtype)
            for name, found in stored.tensors.items()
            if name.startswith(_WEIGHTS)
        }
        stored.read_into({f"{_WEIGHTS}{name}": tensor for name, tensor in weights.items()})
        bundle.load_weights(model, _for_its_loss(weights, model), str(self.path))


def _for_its_loss(weights: dict[str, Tensor], model: DualEncoder) -> dict[str, Tensor]:
    """Weights of a training with another loss fit too: the bias is of the loss and not of the towers.

    One that the weights lack keeps its start value, one that the model lacks is left out.
    """
    own = {name: value for name, value in model.state_dict().items() if name == _BIAS}
    return own | {name: value for name, value in weights.items() if name != _BIAS or name in own}


def _check_pooling(learned: str, model: DualEncoder, origin: str) -> None:
    """Weights fit any pooling by their shapes, but mean something with the one that they learned with alone."""
    if learned != model.architecture.pooling:
        raise ZeroVLError(
            f"train.init_from: {origin} was trained with the pooling {learned!r}, model.text_tower.pooling comes to "
            f"{model.architecture.pooling!r}; set it to {learned}"
        )


def find_start(params: Params, workspace: Workspace) -> Start | None:
    """Return what `train.init_from` names, None where it is empty; raises `ZeroVLError` where there is no such thing.

    Releases are fetched with `zerovl registry pull` first.
    """
    reference = params.train.init_from
    if not reference:
        return None
    folder = Path(reference)
    if (folder / CONFIG).is_file():
        return BundleStart(folder)
    if folder.name.startswith("step-") and folder.parent.name == "checkpoints":  # as a path of runs/
        reference = f"{folder.parent.parent.name}@{folder.name.removeprefix('step-')}"
    if "/" not in reference and "@" in reference:
        checkpoint = find_checkpoint(reference, workspace, "init_from")
        checkpoint.require("init_from")
        return checkpoint
    raise ZeroVLError(
        f"train.init_from: {reference} is not a bundle; name a bundle's folder (a release: `zerovl registry pull "
        "NAME@ALIAS --out FOLDER`), or RUN@STEP for a checkpoint in runs/"
    )


def find_parent(params: Params, workspace: Workspace) -> Checkpoint | None:
    """Return the checkpoint that `train.continue_from` names, None where it is empty.

    It need not be there any more: a run that has checkpoints of its own goes on without.
    """
    reference = params.train.continue_from
    return find_checkpoint(reference, workspace, "continue_from") if reference else None


def find_checkpoint(reference: str, workspace: Workspace, key: str) -> Checkpoint:
    """Return the checkpoint RUN@STEP, there or not any more; raises `ZeroVLError` that lists what runs there are."""
    name, _, text = reference.partition("@")
    known = sorted(path for path in workspace.runs.glob("*") if (path / RUN_DESCRIPTION).is_file())
    fitting = [path for path in known if name and path.name.startswith(name)]
    if len(fitting) != 1:
        listed = ", ".join(path.name for path in fitting or known) or "none"
        problem = f"{len(fitting)} runs begin so" if fitting else "there is no such run"
        raise ZeroVLError(f"train.{key}: {reference}: {problem} in {workspace.runs}/; name one of: {listed}")
    if text and not text.isdecimal():
        raise ZeroVLError(f"train.{key}: {reference}: {text!r} is not a step; write RUN@STEP with a number")
    return Checkpoint(fitting[0], int(text) if text else max(saved_steps(fitting[0] / "checkpoints"), default=0))
