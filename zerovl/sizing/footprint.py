"""Memory of a rank by part: one table for `zerovl plan`, for what is kept in memory, and for the start-up block.

Shapes: B global batch, b local pairs, n micro-batches of m, k of them with kept graphs, D embedding width, W ranks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from zerovl import text_format
from zerovl.engine.frozen_features import Side, cached_sides, training_image_size
from zerovl.engine.transfer import ROOM
from zerovl.objective.loss import Loss
from zerovl.params import Params
from zerovl.sizing.activations import Activations

_FLOAT = 4  # bytes: weights, gradients, moments and embeddings are float32
_CHECKED = 100  # pairs that a validation check embeds at once


@dataclass(frozen=True)
class BatchLayout:
    """How a local batch goes through the towers."""

    batch: int  # B
    world_size: int  # W
    micro_batch: int  # m
    kept_graphs: int  # k

    @property
    def local(self) -> int:
        """Pairs of a rank, b."""
        return self.batch // self.world_size

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a rank, n."""
        return self.local // self.micro_batch


@dataclass(frozen=True)
class Footprint:
    """Bytes a rank. The parts below `inputs` take turns; see `total`."""

    weights: int
    gradients: int
    moments: int  # of AdamW
    embeddings: int  # of the local batch and their gradients
    inputs: int
    activations: int  # of a micro-batch that goes forward and backward
    beside_graphs: int  # what a micro-batch needs while graphs are kept, its own among them
    kept_graphs: int
    loss: int
    checks: int  # scoring a sample of the validation pairs
    average: int = 0  # of the weights over the steps

    @property
    def total(self) -> int:
        """The highest point: kept graphs are there beside the loss and until their backward, then come the others."""
        lasting = self.weights + self.gradients + self.moments + self.embeddings + self.inputs + self.average
        with_kept = self.kept_graphs + max(self.loss, self.beside_graphs if self.kept_graphs else 0)
        return lasting + max(self.activations, with_kept, self.checks)

    def as_dict(self) -> dict[str, int]:
        """Return the parts and their total, as plain values."""
        return {**asdict(self), "total": self.total}

    def __str__(self) -> str:
        own, kept = self.activations, self.kept_graphs  # they take turns, so the larger is named
        parts = [
            f"{name} {text_format.size(size)}"
            for name, size in (
                ("weights", self.weights),
                ("gradients", self.gradients),
                ("AdamW", self.moments),
                ("averaged weights", self.average),
                ("activations", own if own >= kept else 0),
                ("kept graphs", kept if kept > own else 0),
                ("embeddings", self.embeddings),
                ("loss", self.loss),
                ("inputs", self.inputs),
                ("validation checks", self.checks if self.checks > max(own, kept) else 0),
            )
            if size
        ]
        return f"about {text_format.size(self.total)} a rank at the highest: {', '.join(parts)}"


@dataclass(frozen=True)
class ModelSize:
    """Numbers of elements; `learned` of the parameters have a gradient and two moments."""

    total: int  # parameters and buffers
    learned: int


@dataclass(frozen=True)
class Workload:
    """What memory depends on beside the towers' own size: the inputs, the loss, and how the model is held."""

    image_size: int
    max_tokens: int
    embed_dim: int  # D
    sharded: bool
    evaluated: bool  # a sample of the validation pairs is scored on the way
    loss: Loss
    averaged: bool = False  # an average of the weights is kept
    part_ranks: int | None = None  # that split a copy of a sharded model; None: all of them
    cached: tuple[Side, ...] = ()  # sides that are read as features, of about the embeddings' width

    @classmethod
    def of(cls, params: Params, loss: Loss, node_size: int | None = None) -> Workload:
        """Return the workload of `params` on nodes of so many ranks; None: all ranks are on one."""
        model = params.model
        return cls(
            training_image_size(params),
            model.max_tokens,
            model.embed_dim,
            params.machine.shard_model,
            params.train.valid_checks > 0,
            loss,
            params.train.ema_decay > 0,
            node_size if params.machine.shard_within == "node" else None,
            tuple(cached_sides(params)),
        )

    @property
    def pair_bytes(self) -> int:
        """Bytes of a pair as the loader gives it."""
        features = _FLOAT * self.embed_dim
        image = features if "image" in self.cached else 3 * self.image_size**2
        return image + (features if "text" in self.cached else 2 * 8 * self.max_tokens)


def footprint(
    workload: Workload, size: ModelSize, activations: Activations, layout: BatchLayout, kind: str
) -> Footprint:
    """Return the bytes of a rank by part."""
    shards = (workload.part_ranks or layout.world_size) if workload.sharded else 1
    width = workload.embed_dim
    average = _FLOAT * size.learned // shards if workload.averaged else 0
    return Footprint(
        weights=_FLOAT * size.total // shards,
        gradients=_FLOAT * size.learned,  # whole until the end of a step, sharded or not
        moments=2 * _FLOAT * size.learned // shards,
        embeddings=2 * 2 * _FLOAT * layout.local * width,  # both sides, and their gradients
        inputs=_inputs(workload, layout, kind),
        activations=_once(activations, layout),
        beside_graphs=beside_graphs(activations, layout),
        kept_graphs=graphs(activations, layout.micro_batch, layout.kept_graphs),
        loss=workload.loss.memory(layout.local, layout.batch, width, kind),
        checks=activations.forward(_CHECKED) + average if workload.evaluated else 0,  # the weights, set aside
        average=average,
    )


def _inputs(workload: Workload, layout: BatchLayout, kind: str) -> int:
    """The host holds all; a GPU those of two micro-batches, and what stays there for the second pass."""
    whole = layout.local * workload.pair_bytes
    if kind == "cpu":
        return whole
    again = layout.micro_batch * (layout.micro_batches - layout.kept_graphs)
    return min(whole, 2 * layout.micro_batch * workload.pair_bytes + min(ROOM, again * workload.pair_bytes))


def graphs(activations: Activations, micro_batch: int, kept: int) -> int:
    """Bytes of k kept graphs, which share the low-precision copies of the weights."""
    return activations.kept(kept * micro_batch) if kept else 0


def beside_graphs(activations: Activations, layout: BatchLayout) -> int:
    """Bytes that are needed beside kept graphs: gradients on their way back, those of the weights among them.

    Through low-precision copies that an earlier graph made, the gradients of all weights wait for the end of a backward
    pass, in that precision too. Where ranks sum gradients the first micro-batch has copies of its own.
    """
    several = layout.kept_graphs > 1
    apart = several and layout.world_size > 1 and layout.kept_graphs == layout.micro_batches
    back = activations.peak(layout.micro_batch) - activations.kept(layout.micro_batch)
    return back + (several + apart) * activations.kept(0)


def still_to_come(parts: Footprint) -> int:
    """Bytes beside activations and kept graphs that a run will take after its model is on the device."""
    return parts.gradients + parts.moments + parts.embeddings + parts.inputs + parts.loss


def _once(activations: Activations, layout: BatchLayout) -> int:
    """One micro-batch through both towers and back; nothing where all graphs are kept."""
    if layout.kept_graphs == layout.micro_batches:
        return 0
    return max(activations.peak(layout.micro_batch), activations.forward(layout.micro_batch))
