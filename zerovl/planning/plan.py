"""`zerovl plan`: what a training run will take, before anything is bought, fetched or started.

Shapes: B global batch, b local pairs, n micro-batches of m, k of them with kept graphs, D embedding width, W ranks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from zerovl import cores
from zerovl.data.batches.sampling import count_steps
from zerovl.data.batches.visits import epoch_sizes
from zerovl.data.manifest import Manifest
from zerovl.engine.frozen_features import cached_sides, training_image_size
from zerovl.errors import ZeroVLError
from zerovl.memory import MARGIN
from zerovl.objective.loss import LOSSES
from zerovl.params import Params
from zerovl.planning import gpus
from zerovl.planning.calibrate import Calibration
from zerovl.planning.planned_model import planned_architecture
from zerovl.planning.target import Target
from zerovl.sizing import shape_only_model
from zerovl.sizing.activations import Activations
from zerovl.sizing.batch_layout import kept_graphs
from zerovl.sizing.footprint import BatchLayout, Footprint, ModelSize, Workload, footprint
from zerovl.sizing.micro_batch_search import candidates
from zerovl.sizing.shape_only_model import Parameters, TowerFlops
from zerovl.training.streamed_sources import streamed_sources
from zerovl.workspace import Workspace

_FLOAT = 4  # bytes
# A larger micro-batch brings no speed, memory is better spent on kept graphs. Assumed, measured by micro_batch: auto.
_LARGEST_MICRO_BATCH = {"cuda": 256, "cpu": 64}


@dataclass(frozen=True)
class Wire:
    """Bytes that a rank receives in one step."""

    embeddings: int  # gathered captions
    log_sum_exps: int
    loss_gradient: int  # reduce-scatter of the gradient of the gathered captions
    gradients: int  # all-reduce, by the ring algorithm; of a sharded model weights that are gathered, too

    @property
    def total(self) -> int:
        """Bytes of all four."""
        return self.embeddings + self.log_sum_exps + self.loss_gradient + self.gradients


@dataclass(frozen=True)
class Work:
    """FLOPs a pair, a multiplication and an addition being two."""

    forward: float
    plain: float
    planned: float  # by the step that train.step names, with its kept graphs
    loss: float


@dataclass(frozen=True)
class Speed:
    """Pairs a second over all ranks, and what follows; the source says how it is known."""

    source: str
    pairs_per_second: float
    step_seconds: float
    hours: float | None
    gpu_hours: float | None


@dataclass(frozen=True)
class Suggestion:
    """The largest useful micro-batch that fits, and the graphs that fit beside it."""

    micro_batch: int
    kept_graphs: int
    memory: Footprint


@dataclass(frozen=True)
class Plan:
    """Everything that `zerovl plan` tells."""

    target: Target
    pairs: int | None  # that an epoch visits: of training, or their captions (`train.epoch_of`)
    steps: int | None
    layout: BatchLayout
    parameters: Parameters
    work: Work
    memory: Footprint
    unseen_bytes: int | None  # measured: libraries and workspaces of kernels, beside `memory`
    wire: Wire
    suggestion: Suggestion | None  # None where nothing fits
    assumed: Speed | None
    measured: Speed | None
    calibration: Calibration | None
    notes: list[str]

    @property
    def peak_memory(self) -> int:
        """Bytes of a rank at the highest point, with libraries where they were measured."""
        return self.memory.total + (self.unseen_bytes or 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the sums."""
        values = asdict(self)
        values["split"] = values.pop("layout")  # as the file has had it from its first version
        for name in ("memory", "wire", "parameters"):
            values[name]["total"] = getattr(self, name).total
        values["peak_memory"] = self.peak_memory
        return values


@dataclass(frozen=True)
class Model:
    """What a plan needs to know of the towers."""

    parameters: Parameters
    flops: TowerFlops
    activations: Activations
    notes: list[str]

    @property
    def size(self) -> ModelSize:
        """Elements that take memory, and those of them that learn."""
        return ModelSize(self.parameters.total + self.parameters.buffers, self.parameters.learned)


def imagine_model(params: Params, target: Target, workspace: Workspace) -> Model:
    """Parameters, FLOPs and activations of the towers, without building them."""
    architecture, notes = planned_architecture(params, workspace)
    model = shape_only_model.imagine(architecture)
    train, tokens = params.train, params.model.max_tokens
    shape_only_model.apply_train_options(model, train, params.machine.activation_checkpointing)
    known, side = cached_sides(params), training_image_size(params)
    measured = shape_only_model.activations(model, target.kind, train.precision, tokens, train.mixup, known, side)
    return Model(shape_only_model.count(model), shape_only_model.forward_flops(model, tokens, side), measured, notes)


def workload(params: Params, target: Target) -> Workload:
    """Return what memory depends on there beside the towers' own size."""
    return Workload.of(params, LOSSES[params.train.loss], target.node_size)


def suggest(params: Params, target: Target, model: Model) -> Suggestion | None:
    """The largest micro-batch that fits, up to where size brings no speed, then the graphs that fit beside it."""
    world, batch = target.world_size, params.train.batch_size
    room = int(MARGIN[target.kind] * target.memory)
    planned = workload(params, target)
    for micro in reversed(candidates(batch // world)):
        bare = footprint(planned, model.size, model.activations, BatchLayout(batch, world, micro, 0), target.kind)
        if micro > _LARGEST_MICRO_BATCH[target.kind] or bare.total > room:
            continue
        free = room - (bare.total - max(bare.activations, bare.loss, bare.checks)) - bare.loss
        kept = kept_graphs("auto", model.activations, BatchLayout(batch, world, micro, 0), free)
        layout = BatchLayout(batch, world, micro, kept)
        return Suggestion(micro, kept, footprint(planned, model.size, model.activations, layout, target.kind))
    return None


def planned_layout(params: Params, target: Target, model: Model, suggestion: Suggestion | None) -> BatchLayout:
    """What training will do by params.yaml; what it leaves to the machine is what the plan suggests."""
    train, machine, world = params.train, params.machine, target.world_size
    local = train.batch_size // world
    if train.step == "plain":
        return BatchLayout(train.batch_size, world, local, 0)
    micro = train.micro_batch
    if micro == "auto":
        micro = suggestion.micro_batch if suggestion else candidates(local)[0]
    only = BatchLayout(train.batch_size, world, micro, 0)
    bare = footprint(workload(params, target), model.size, model.activations, only, target.kind)
    lasting = bare.total - max(bare.activations, bare.loss, bare.checks)
    free = int(MARGIN[target.kind] * target.memory) - lasting - bare.loss
    kept = machine.kept_graphs
    if machine.activation_budget != "none":
        kept = kept_graphs(machine.activation_budget, model.activations, only, free)
    return BatchLayout(train.batch_size, world, micro, min(kept, local // micro))


def work(params: Params, flops: TowerFlops, layout: BatchLayout) -> Work:
    """A backward pass costs two forward passes; a frozen tower goes forward once and never back."""
    train = params.train
    share = 0.0 if train.step == "plain" else 1 - layout.kept_graphs / layout.micro_batches
    learned = sum(value for side, value in asdict(flops).items() if side not in train.freeze)
    frozen = flops.image + flops.text - learned
    again = learned if params.machine.activation_checkpointing else 0.0
    plain = 3 * learned + frozen + again
    loss = LOSSES[params.train.loss].operations(layout.batch, params.model.embed_dim)
    return Work(learned + frozen, plain, plain + share * learned, loss)


def wire(params: Params, parameters: Parameters, layout: BatchLayout, node_size: int | None = None) -> Wire:
    """What a rank receives; nothing where it is alone. Nodes have `node_size` ranks; None: all are on one."""
    ranks, width = layout.world_size, params.model.embed_dim
    others = (ranks - 1) * layout.local * width * _FLOAT
    gradients = 2 * (ranks - 1) * parameters.learned * _FLOAT // ranks
    if params.machine.shard_model:  # weights come for each pass, gradients once
        passes = 3 * layout.micro_batches - (
            layout.micro_batches if params.train.step == "plain" else layout.kept_graphs
        )
        low = params.machine.shard_gathers == "low" and params.train.precision != "float32"
        gathered = passes * parameters.total * (2 if low else _FLOAT)
        parts = node_size if node_size and params.machine.shard_within == "node" else ranks  # that split a copy
        gradients = (parts - 1) * (gathered + parameters.learned * _FLOAT) // parts
        copies = ranks // parts
        gradients += 2 * (copies - 1) * parameters.learned * _FLOAT // (parts * copies)  # summed over the copies
    return Wire(others, (ranks - 1) * layout.batch * _FLOAT, others, gradients)


def assumed_speed(
    target: Target, planned: Work, layout: BatchLayout, params: Params, steps: int | None
) -> Speed | None:
    """From the table of matrix rates; None where the device is not in it."""
    if target.flops is None:
        return None
    share = gpus.utilisation(params.train, params.machine)
    rate = share * target.flops * layout.world_size / (planned.planned + planned.loss)
    source = f"assumed: {share:.0%} of {target.flops / 1e12:.0f} TFLOP/s"
    return _speed(source, rate, target, layout, steps)


def measured_speed(
    target: Target, calibration: Calibration, params: Params, layout: BatchLayout, steps: int | None
) -> Speed:
    """From steps timed on this machine; data and towers work at the same time where there are loader processes."""
    rate = layout.local / calibration.step_seconds(layout)
    loader, workers = calibration.loader_pairs_per_second, params.machine.loader_workers
    if loader and not workers:
        rate = 1 / (1 / rate + 1 / loader)
    elif loader:
        both = min(rate, loader)
        if target.kind == "cpu":  # they share the cores
            own_cores = cores.core_count() / layout.world_size
            both = min(both, own_cores / (calibration.threads / rate + workers / loader))
        rate = both
    return _speed(f"measured on {calibration.device}", rate * layout.world_size, target, layout, steps)


def _speed(source: str, rate: float, target: Target, layout: BatchLayout, steps: int | None) -> Speed:
    seconds = layout.batch / rate
    hours = steps * seconds / 3600 if steps else None
    gpu_hours = hours * layout.world_size if hours and target.kind == "cuda" else None
    return Speed(source, rate, seconds, hours, gpu_hours)


def training_pairs(params: Params, workspace: Workspace, given: int | None) -> int | None:
    """Return --pairs, else those that are streamed, else what an epoch of the manifest's visits, else None.

    Raises `ZeroVLError` for a --pairs below 1.
    """
    if given is not None:
        if given < 1:
            raise ZeroVLError(f"--pairs {given}: give 1 or more")
        return given
    if params.train.reading == "streaming":
        return sum(source.pairs for source in streamed_sources(params, workspace))
    if not workspace.manifest_file.is_file():
        return None
    return sum(epoch_sizes(params.train.epoch_of, Manifest.load(workspace.manifest)).values())


def planned_steps(params: Params, pairs: int | None) -> int | None:
    """Return the optimiser steps of a run whose epochs visit so many, None where that is not known."""
    return count_steps(params.train.epochs, pairs, params.train.batch_size) if pairs else None
