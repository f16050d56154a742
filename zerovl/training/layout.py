"""How a run's local batch goes through the towers: micro-batch and kept graphs, chosen once at the start.

Both can be left to the machine (`train.micro_batch: auto`, `train.activation_budget`). All ranks take
the same: the smallest that any of them can hold. What was found is kept in the run's folder, and a run
that goes on takes it from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from zerovl.errors import ZeroVLError
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import Params
from zerovl.training import found_graphs, imagined
from zerovl.training import micro_batch as finder
from zerovl.training.activations import Activations, Run, measure
from zerovl.training.footprint import Footprint, ModelSize, Split, footprint, graphs, still_to_come
from zerovl.training.forward import Precision
from zerovl.training.memory import MARGIN, free_memory, parse_size, show_size
from zerovl.training.ranks import Ranks
from zerovl.training.synthetic import make_mix, timed_pass, tower_pass


@dataclass(frozen=True)
class Layout:
    """What was chosen, what it takes, and what the start-up block says about it."""

    split: Split
    memory: Footprint
    said: str


def choose(params: Params, model: DualEncoder, precision: Precision, ranks: Ranks, folder: Path) -> Layout:
    """Measures the towers and decides; the model and all random states stay as they are. A collective.

    Call it with the model on its device, before the first step. Raises `ZeroVLError` where nothing fits,
    or what the run began with fits no longer.
    """
    train = params.train
    passes = (model, make_mix(train.mixup), precision, ranks.device, params.model.max_tokens)
    activations = _activations(params, model, tower_pass(*passes), ranks)
    size = size_of(model)
    local = train.batch_size // ranks.world_size
    said = []

    def memory_of(micro: int, kept: int = 0) -> Footprint:
        split = Split(train.batch_size, ranks.world_size, micro, kept)
        return footprint(params, size, activations, split, ranks.device.type)

    if train.step == "plain":
        micro = local
    elif train.micro_batch == "auto":
        later = still_to_come(memory_of(1))
        # A trial makes gradients of its own; the rest is held beside it.
        trial = finder.RealTrial(model, timed_pass(*passes), ranks.device, later - memory_of(1).gradients)
        room = int(MARGIN[ranks.device.type] * free_memory(ranks.device)) - later
        found = _found_micro_batch(folder, local, activations, room, trial, ranks)
        micro = found.micro_batch
        said.append(f"{local // micro} micro-batches of {micro} (auto: {found.why})")
    else:
        micro = train.micro_batch
        said.append(f"{local // micro} micro-batches of {micro}")

    kept = 0
    if train.step == "decoupled":
        kept, origin = min(train.kept_graphs, local // micro), ""
        if train.activation_budget != "none":
            later = still_to_come(memory_of(micro))
            purpose = found_graphs.Purpose(train.batch_size, ranks.world_size, micro, train.activation_budget)
            kept, known = _found_graphs(folder, purpose, activations, later, ranks)
            origin = ", found when the run began" if known else ""
        if kept or train.activation_budget != "none":
            taken = show_size(graphs(activations, micro, kept))
            said.append(f"keeps the graphs of {kept} of {local // micro} ({taken}{origin})")
    split = Split(train.batch_size, ranks.world_size, micro, kept)
    return Layout(split, memory_of(micro, kept), ", ".join(said) or "one pass")


def kept_graphs(budget: str, activations: Activations, micro_batch: int, micro_batches: int, free: int) -> int:
    """How many of n graphs fit in `train.activation_budget`: a size, or "auto" for `free` bytes a rank.

    A size is for the graphs alone. What is free must also hold the gradients on their way back.
    """
    if budget == "none":
        return 0
    if budget == "auto":
        available = free - (activations.peak(micro_batch) - activations.kept(micro_batch))
    else:
        available = parse_size(budget, "train.activation_budget")
    graph = max(1.0, activations.kept.per_pair * micro_batch)
    return max(0, min(micro_batches, int((available - activations.kept.fixed) // graph)))


def size_of(model: torch.nn.Module) -> ModelSize:
    total = sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
    return ModelSize(total, sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad))


def smallest(ranks: Ranks, value: float) -> float:
    """The smallest value over ranks; a collective."""
    mine = torch.tensor([value], dtype=torch.float64, device=ranks.device)
    return float(ranks.collectives.gather(mine).min())


def _activations(params: Params, model: DualEncoder, run: Run, ranks: Ranks) -> Activations:
    """Measured; for a sharded model, whose every pass is a collective that all ranks enter, imagined."""
    train = params.train
    if not train.shard_model:
        return measure(model, run, ranks.device)
    whole = imagined.imagine(model.architecture)
    imagined.as_trained(whole, train)
    return imagined.activations(whole, ranks.device.type, train.precision, params.model.max_tokens, train.mixup)


def _found_micro_batch(
    folder: Path, local: int, activations: Activations, room: int, trial: finder.RealTrial, ranks: Ranks
) -> finder.Found:
    """What rank 0 has on disk, else what fits on all ranks."""
    known = finder.read_found(folder, local) if ranks.is_first else None
    mine = torch.tensor([known.micro_batch if known else 0], device=ranks.device)
    size = int(ranks.collectives.gather(mine)[0])
    if size:
        return known or finder.Found(size, "found when the run began")
    found = finder.find(local, activations, room, trial, lambda value: smallest(ranks, value))
    if ranks.is_first:
        finder.write_found(folder, found)
    return found


def _found_graphs(
    folder: Path, purpose: found_graphs.Purpose, activations: Activations, later: int, ranks: Ranks
) -> tuple[int, bool]:
    """What rank 0 has on disk, else what fits on all ranks beside `later` bytes; and whether it was on disk."""
    budget, micro, most = purpose.activation_budget, purpose.micro_batch, purpose.micro_batches
    known = found_graphs.read_found(folder, purpose) if ranks.is_first else None
    mine = torch.tensor([-1 if known is None else known], device=ranks.device)
    before = int(ranks.collectives.gather(mine)[0])
    free = free_memory(ranks.device)
    if before < 0:
        room = int(MARGIN[ranks.device.type] * free) - later
        kept = int(smallest(ranks, kept_graphs(budget, activations, micro, most, room)))
        if ranks.is_first:
            found_graphs.write_found(folder, purpose, kept)
        return kept, False
    if budget == "auto":  # a size is the user's word, whatever is free
        # Without the margin, which is there for what is free a little more or less at another start.
        fitting = int(smallest(ranks, kept_graphs(budget, activations, micro, most, free - later)))
        if fitting < before:
            raise ZeroVLError(
                f"{folder / found_graphs.FILE}: this run keeps {before} graphs of {micro} pairs "
                f"({show_size(graphs(activations, micro, before))}), and the memory that is free now holds {fitting}; "
                "free some, or set train.activation_budget to none and "
                f"train.kept_graphs to {fitting}: the run goes on, its gradients rounded differently from there on"
            )
    return before, True
