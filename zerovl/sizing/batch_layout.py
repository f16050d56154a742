"""How a run's local batch goes through the towers: micro-batch and kept graphs, chosen once at the start.

Both can be left to the machine (`train.micro_batch: auto`, `machine.activation_budget`). All ranks take
the same: the smallest that any of them can hold. What was found is kept in the run's folder, and a run
that goes on takes it from there (see `decisions`).

Shapes: b local pairs, n micro-batches of m, k of them with kept graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from zerovl import text_format
from zerovl.distributed.ranks import Ranks
from zerovl.engine.frozen_features import cached_sides, training_image_size
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.memory import MARGIN, free_memory
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.loss import Loss
from zerovl.params import Params
from zerovl.sizing import decisions, micro_batch_search, shape_only_model
from zerovl.sizing.activations import Activations, Run, measure
from zerovl.sizing.decisions import MicroBatchDecision, Purpose
from zerovl.sizing.footprint import (
    BatchLayout,
    Footprint,
    ModelSize,
    Workload,
    beside_graphs,
    footprint,
    graphs,
    still_to_come,
)
from zerovl.sizing.synthetic import make_mix, timed_pass, tower_pass
from zerovl.text_format import parse_size, plural


@dataclass(frozen=True)
class Sizing:
    """What was chosen, what it takes, and what the start-up block says about it."""

    layout: BatchLayout
    memory: Footprint
    said: str


def choose(params: Params, model: DualEncoder, loss: Loss, precision: Precision, ranks: Ranks, folder: Path) -> Sizing:
    """Measure the towers and decide; the model and all random states stay as they are. A collective.

    Call it with the model on its device, before the first step. Raises `ZeroVLError` where nothing fits,
    or what the run began with fits no longer.
    """
    train, kind = params.train, ranks.device.type
    known, side = cached_sides(params), training_image_size(params)
    passes = (model, make_mix(train.mixup), precision, ranks.device, params.model.max_tokens, known, side)
    activations = _activations(params, model, tower_pass(*passes), ranks)
    workload, size = Workload.of(params, loss, ranks.node_size), size_of(model)
    local = train.batch_size // ranks.world_size

    def memory_of(micro: int, kept: int = 0) -> Footprint:
        layout = BatchLayout(train.batch_size, ranks.world_size, micro, kept)
        return footprint(workload, size, activations, layout, kind)

    if train.step == "plain":
        return Sizing(BatchLayout(train.batch_size, ranks.world_size, local, 0), memory_of(local), "one pass")
    if train.micro_batch == "auto":
        later = still_to_come(memory_of(1))
        # A trial makes gradients of its own; the rest is held beside it.
        trial = micro_batch_search.RealTrial(model, timed_pass(*passes), ranks.device, later - memory_of(1).gradients)
        room = int(MARGIN[kind] * free_memory(ranks.device)) - later
        decision = _micro_batch(folder, local, activations, room, trial, ranks)
        micro, why = decision.micro_batch, f" (auto: {decision.why})"
    else:
        micro, why = train.micro_batch, ""
    said = f"{plural(local // micro, 'micro-batch', 'micro-batches')} of {micro}{why}"
    kept, origin = _kept(params, activations, still_to_come(memory_of(micro)), micro, ranks, folder)
    if kept or params.machine.activation_budget != "none":
        taken = text_format.size(graphs(activations, micro, kept))
        said += f", keeps the graphs of {kept} of {local // micro} ({taken}{origin})"
    return Sizing(BatchLayout(train.batch_size, ranks.world_size, micro, kept), memory_of(micro, kept), said)


def _kept(
    params: Params, activations: Activations, later: int, micro: int, ranks: Ranks, folder: Path
) -> tuple[int, str]:
    """Return how many graphs are kept beside `later` bytes, and words on where that number comes from."""
    machine, batch = params.machine, params.train.batch_size
    if machine.activation_budget == "none":
        return min(machine.kept_graphs, batch // ranks.world_size // micro), ""
    purpose = Purpose(batch, ranks.world_size, micro, machine.activation_budget)
    before = _first_rank_knows(ranks, lambda: decisions.read_kept_graphs(folder, purpose))
    if before is None:
        return _find_kept_graphs(folder, purpose, activations, later, ranks), ""
    if purpose.activation_budget == "auto":  # a size is the user's word, whatever is free
        _check_still_fits(folder, purpose, activations, later, ranks, before)
    return before, ", found when the run began"


def kept_graphs(budget: str, activations: Activations, layout: BatchLayout, free: int) -> int:
    """How many of n graphs fit in `machine.activation_budget`: a size, or "auto" for `free` bytes a rank.

    A size is for the graphs alone, and the first has the memory of the micro-batch that any step needs. What is free
    must also hold what is needed beside them. How many `layout` keeps does not matter.
    """
    if budget == "none":
        return 0
    size = None if budget == "auto" else parse_size(budget, "machine.activation_budget")

    def fits(kept: int) -> bool:
        taken = graphs(activations, layout.micro_batch, kept)
        if size is not None:
            return kept == 1 or taken <= size
        return taken + beside_graphs(activations, replace(layout, kept_graphs=kept)) <= free

    return next((kept for kept in range(layout.micro_batches, 0, -1) if fits(kept)), 0)


def size_of(model: torch.nn.Module) -> ModelSize:
    """Return the numbers of elements of a model."""
    total = sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
    return ModelSize(total, sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad))


def smallest(ranks: Ranks, value: float) -> float:
    """The smallest value over ranks; a collective."""
    mine = torch.tensor([value], dtype=torch.float64, device=ranks.device)
    return float(ranks.collectives.gather(mine).min())


def _activations(params: Params, model: DualEncoder, run: Run, ranks: Ranks) -> Activations:
    """Measured; for a sharded model, whose every pass is a collective that all ranks enter, by shapes alone."""
    if not params.machine.shard_model:
        return measure(model, run, ranks.device)
    train = params.train
    whole = shape_only_model.imagine(model.architecture)
    shape_only_model.apply_train_options(whole, train, params.machine.activation_checkpointing)
    return shape_only_model.activations(
        whole,
        ranks.device.type,
        train.precision,
        params.model.max_tokens,
        train.mixup,
        cached_sides(params),
        training_image_size(params),
    )


def _first_rank_knows(ranks: Ranks, read: Callable[[], int | None]) -> int | None:
    """Return what rank 0 reads on its disk, on all ranks; a collective."""
    known = read() if ranks.is_first else None
    mine = torch.tensor([-1 if known is None else known], device=ranks.device)
    found = int(ranks.collectives.gather(mine)[0])
    return None if found < 0 else found


def _micro_batch(
    folder: Path,
    local: int,
    activations: Activations,
    room: int,
    trial: micro_batch_search.RealTrial,
    ranks: Ranks,
) -> MicroBatchDecision:
    """What rank 0 has on disk, else what fits on all ranks."""
    known = decisions.read_micro_batch(folder, local) if ranks.is_first else None
    if (size := _first_rank_knows(ranks, lambda: known.micro_batch if known else None)) is not None:
        return known or MicroBatchDecision(size, "found when the run began")
    found = micro_batch_search.find(local, activations, room, trial, lambda value: smallest(ranks, value))
    if ranks.is_first:
        decisions.write_micro_batch(folder, found)
    return found


def _find_kept_graphs(folder: Path, purpose: Purpose, activations: Activations, later: int, ranks: Ranks) -> int:
    """What fits on all ranks beside `later` bytes; written down by rank 0."""
    room = int(MARGIN[ranks.device.type] * free_memory(ranks.device)) - later
    fitting = kept_graphs(purpose.activation_budget, activations, purpose.layout, room)
    kept = int(smallest(ranks, fitting))
    if ranks.is_first:
        decisions.write_kept_graphs(folder, purpose, kept)
    return kept


def _check_still_fits(
    folder: Path, purpose: Purpose, activations: Activations, later: int, ranks: Ranks, before: int
) -> None:
    """Raises `ZeroVLError` where the graphs that a run began with no longer fit on some rank."""
    micro = purpose.micro_batch
    # Without the margin, which is there for what is free a little more or less at another start.
    free = free_memory(ranks.device) - later
    fitting = int(smallest(ranks, kept_graphs("auto", activations, purpose.layout, free)))
    if fitting < before:
        raise ZeroVLError(
            f"{folder / decisions.KEPT_GRAPHS_FILE}: this run keeps {before} graphs of {micro} pairs "
            f"({text_format.size(graphs(activations, micro, before))}), and the memory that is free now holds "
            f"{fitting}; free some, or set machine.activation_budget to none and machine.kept_graphs to {fitting}: the "
            "run goes on, its gradients rounded differently from there on"
        )
