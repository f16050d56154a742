"""What `zerovl evaluate` and the gate share among the ranks of `machine.ranks`: embedding, ranking, sets of pictures.

A job says in JSON what a helper needs to do its share; every rank makes the same calls, and rank 0 keeps the results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from zerovl.data.manifest import Manifest
from zerovl.data.open_shards import open_shards
from zerovl.device import gpu_count
from zerovl.distributed.helper_processes import Helpers
from zerovl.distributed.helpers import help_with, shared_work
from zerovl.distributed.ranks import Ranks
from zerovl.evaluation.base import Evaluation, Evaluator
from zerovl.evaluation.early_helpers import MODULE, usable_cores
from zerovl.evaluation.evaluators import evaluators_of, run_all
from zerovl.evaluation.metrics import Table
from zerovl.evaluation.pool import Pool, encode
from zerovl.evaluation.scores import Ranked, rank
from zerovl.evaluation.validation_set import validation_batches
from zerovl.model.encoder import Encoder
from zerovl.params import EvaluateParams, MachineParams
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class Job:
    """A model on the validation splits of a workspace."""

    settings: EvaluateParams
    machine: MachineParams
    root: Path  # of the workspace
    project: Path  # that has the tars in place, most often the same
    model: Path  # a bundle

    def evaluate(self, early: Helpers | None = None) -> tuple[Evaluation, dict[str, Table]]:
        """Run the evaluators, with helpers that run already where they fit.

        Raises:
            ZeroVLError: a rank fails or dies, and before where a set is unusable.
        """
        evaluators = evaluators_of(self.settings)
        with self._shared("evaluate", early) as ranks:
            return _evaluate(self, evaluators, ranks)

    def rank(self, encoder: Encoder) -> tuple[Pool, dict[str, Ranked]]:
        """Rank the validation pairs by a model that is loaded already; raises `ZeroVLError` as `evaluate`."""
        with self._shared("rank") as ranks:
            return _rank(self, encoder, ranks)

    def _shared(self, work: str, early: Helpers | None = None) -> AbstractContextManager[Ranks]:
        told = {
            "work": work,
            "settings": self.settings.model_dump(mode="json"),
            "machine": self.machine.model_dump(mode="json"),
            "root": str(self.root),
            "project": str(self.project),
            "model": str(self.model),
        }
        return shared_work(_usable_ranks(self.machine.ranks), MODULE, json.dumps(told), early)


def _usable_ranks(asked: int) -> int:
    """Return how many ranks work: no more than there are GPUs, or cores, as the numbers are the same with any.

    `machine.ranks` is often that of the node that trained.
    """
    gpus = gpu_count()
    return min(asked or gpus, gpus) if gpus else usable_cores(asked)


def _set_arithmetic() -> None:
    """Ranks are counted from float32 products: not from TF32's 10 bits, whatever the environment says."""
    torch.set_float32_matmul_precision("highest")


def _evaluate(job: Job, evaluators: Sequence[Evaluator], ranks: Ranks) -> tuple[Evaluation, dict[str, Table]]:
    _set_arithmetic()
    device = str(ranks.device)
    trained = Encoder.load(job.model, device)
    untrained = Encoder.untrained(job.model, job.settings.seed, device)
    workspace = Workspace(job.root)
    manifest = Manifest.load(workspace.manifest)
    shards = open_shards(manifest, "valid", job.machine, workspace, job.project)
    evaluation = Evaluation.run(job.settings, manifest, shards, trained, untrained, ranks)
    return evaluation, run_all(evaluation, evaluators)


def _rank(job: Job, encoder: Encoder, ranks: Ranks) -> tuple[Pool, dict[str, Ranked]]:
    _set_arithmetic()
    workspace, size = Workspace(job.root), job.settings.batch_size
    manifest = Manifest.load(workspace.manifest)
    shards = open_shards(manifest, "valid", job.machine, workspace, job.project)
    pool, (embeddings,) = encode(validation_batches(manifest, shards, encoder, size, ranks), [encoder], size, ranks)
    return pool, rank(pool, embeddings, job.settings.chunk, ranks)


_WORKS: dict[str, Callable[[Job, Ranks], object]] = {
    "evaluate": lambda job, ranks: _evaluate(job, evaluators_of(job.settings), ranks),
    "rank": lambda job, ranks: _rank(job, Encoder.load(job.model, str(ranks.device)), ranks),
}


def _help(told: str, ranks: Ranks) -> None:
    """Do one rank's share of a job."""
    values = json.loads(told)
    settings, machine = (
        EvaluateParams.model_validate(values["settings"]),
        MachineParams.model_validate(values["machine"]),
    )
    job = Job(settings, machine, Path(values["root"]), Path(values["project"]), Path(values["model"]))
    _WORKS[values["work"]](job, ranks)


if __name__ == "__main__":
    sys.exit(help_with(_help))
