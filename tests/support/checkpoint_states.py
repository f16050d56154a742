"""States to save, checkpoints to save them in, and a disk that takes small files alone."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.support.towers import RANKS, model
from zerovl.distributed.ranks import Ranks
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.state import TrainingState
from zerovl.model.dual_encoder import DualEncoder


def of(dual: DualEncoder) -> TrainingState:
    """A state of AdamW and a loss scale for a model."""
    scalars = [p for p in dual.parameters() if p.dim() == 0]  # FSDP2 shards none, and an update takes one kind
    groups = [{"params": scalars}, {"params": [p for p in dual.parameters() if p.dim()]}]
    optimiser = torch.optim.AdamW(groups, fused=True)
    return TrainingState(dual, optimiser, torch.amp.GradScaler("cpu", init_scale=4.0))


def trained(seed: int = 0) -> TrainingState:
    """A state after one step on gradients of that seed."""
    state = of(model())
    generator = torch.Generator().manual_seed(seed)
    for parameter in state.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    state.optimiser.step()
    return state


def equal(a: TrainingState, b: TrainingState) -> bool:
    """Whether all tensors of two states are bit-equal."""
    left, right = a.tensors(), b.tensors()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def under(folder: Path, keep: int = 2, keep_every: int = 0, ranks: Ranks = RANKS) -> Checkpoints:
    """Checkpoints in a folder, with the defaults of these tests."""
    return Checkpoints(folder, keep, keep_every, ranks)


def save(kept: Checkpoints, state: TrainingState, step: int, report: Callable[[str], None] = print) -> bool:
    """Save a state and wait for it; whether it is whole."""
    kept.begin(state, step, report)
    return kept.finish(report)


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Writes past `size` bytes of any file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
