"""Memory of a rank by part: one table for `zerovl plan`, for what is kept in memory, and for the start-up block.

Shapes: B global batch, b local pairs, n micro-batches of m, k of them with kept graphs, D embedding width, W ranks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from zerovl.objective.tiles import CUDA_TILE, TILE
from zerovl.params import Params
from zerovl.training.activations import Activations
from zerovl.training.memory import show_size

_FLOAT = 4  # bytes: weights, gradients, moments and embeddings are float32
_CHECKED = 100  # pairs that a validation check embeds at once


@dataclass(frozen=True)
class Split:
    """How a local batch goes through the towers."""

    batch: int  # B
    world_size: int  # W
    micro_batch: int  # m
    kept_graphs: int  # k

    @property
    def local(self) -> int:
        return self.batch // self.world_size

    @property
    def micro_batches(self) -> int:
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
    backward: int  # the part of it that is not its graph
    kept_graphs: int
    loss: int
    checks: int  # scoring a sample of the validation pairs

    @property
    def total(self) -> int:
        """The highest point: kept graphs are there in the loss and until their backward, then come the others."""
        lasting = self.weights + self.gradients + self.moments + self.embeddings + self.inputs
        with_kept = self.kept_graphs + max(self.loss, self.backward if self.kept_graphs else 0)
        return lasting + max(self.activations, with_kept, self.checks)

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "total": self.total}

    def __str__(self) -> str:
        parts = [
            f"{name} {show_size(size)}"
            for name, size in (
                ("weights", self.weights),
                ("gradients", self.gradients),
                ("AdamW", self.moments),
                ("activations", self.activations),
                ("kept graphs", self.kept_graphs),
                ("embeddings", self.embeddings),
                ("loss", self.loss),
                ("inputs", self.inputs),
                ("validation checks", self.checks if self.checks > self.activations + self.kept_graphs else 0),
            )
            if size
        ]
        return f"about {show_size(self.total)} a rank at the highest: {', '.join(parts)}"


@dataclass(frozen=True)
class ModelSize:
    """Numbers of elements; `learned` of the parameters have a gradient and two moments."""

    total: int  # parameters and buffers
    learned: int


def footprint(params: Params, size: ModelSize, activations: Activations, split: Split, kind: str) -> Footprint:
    """`kind` is "cpu" or "cuda": a GPU holds two micro-batches of the inputs, the host all."""
    shards = split.world_size if params.train.shard_model else 1
    width = params.model.embed_dim
    inputs = split.local if kind == "cpu" else min(split.local, 2 * split.micro_batch)
    side, tokens = params.model.image_size, params.model.max_tokens
    return Footprint(
        weights=_FLOAT * size.total // shards,
        gradients=_FLOAT * size.learned,  # whole until the end of a step, sharded or not
        moments=2 * _FLOAT * size.learned // shards,
        # Of both modalities: the parts of the micro-batches, the whole made of them, and its gradient.
        embeddings=2 * 3 * _FLOAT * split.local * width,
        inputs=inputs * (3 * side * side + 2 * 8 * tokens),
        activations=_once(activations, split),
        backward=activations.peak(split.micro_batch) - activations.kept(split.micro_batch),
        kept_graphs=graphs(activations, split.micro_batch, split.kept_graphs),
        loss=_loss(split, width, TILE if kind == "cpu" else CUDA_TILE),
        checks=activations.forward(_CHECKED) if params.train.valid_checks else 0,
    )


def graphs(activations: Activations, micro_batch: int, kept: int) -> int:
    """Bytes of k kept graphs, which share the low-precision copies of the weights."""
    return activations.kept(kept * micro_batch) if kept else 0


def still_to_come(parts: Footprint) -> int:
    """Bytes beside activations and kept graphs that a run will take after its model is on the device."""
    return parts.gradients + parts.moments + parts.embeddings + parts.inputs + parts.loss


def _once(activations: Activations, split: Split) -> int:
    """One micro-batch through both towers and back; nothing where all graphs are kept."""
    if split.kept_graphs == split.micro_batches:
        return 0
    return max(activations.peak(split.micro_batch), activations.forward(split.micro_batch))


def _loss(split: Split, width: int, tile: int) -> int:
    """Gathered captions, the gradients that the tiled loss sums up, and its tiles."""
    rows, columns = min(tile, split.local), min(tile, split.batch)
    gathered = split.batch * width if split.world_size > 1 else 0
    gradients = (split.local + split.batch) * width
    return _FLOAT * (gathered + gradients + 2 * rows * columns)
