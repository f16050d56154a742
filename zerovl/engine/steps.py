"""From a local batch to gradients: `PlainStep` in one pass, `DecoupledStep` in two.

Both leave the same gradient in `.grad`, to rounding, with dropout, mixup and any number of ranks,
and sum it over ranks once a step, while the last backward still runs.

Shapes: b local pairs in n micro-batches of m, k of them with kept graphs, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zerovl.distributed.ranks import Ranks
from zerovl.engine.forward import NO_DROPOUT, Constants, FeatureDropout, Forward, Inputs, random_seeds
from zerovl.engine.gradients import Gradients
from zerovl.engine.precision import Precision
from zerovl.engine.sharding import is_sharded
from zerovl.engine.statistics import BatchStatistics
from zerovl.engine.transfer import NO_TRANSFER, KeptInputs, Transfer
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.loss import Loss
from zerovl.objective.mixup import Mix


class Step(Protocol):
    """What turns a local batch into gradients."""

    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        """Add the gradient of this step to `.grad`; returns the loss over the global batch, a scalar."""


@dataclass(frozen=True)
class StepContext:
    """What a step works with, the same for all steps of a run."""

    model: DualEncoder
    ranks: Ranks
    precision: Precision
    loss: Loss
    seed: int
    gradients: Gradients  # brings those of all ranks together
    dropout: FeatureDropout = NO_DROPOUT
    transfer: Transfer = NO_TRANSFER  # of micro-batches to the device

    def forward(self, mix: Mix, step: int, micro_batches: int) -> Forward:
        """Return the forward pass of a step, with the random seeds of this rank's micro-batches."""
        seeds = random_seeds(self.seed, step, self.ranks.rank, micro_batches)
        return Forward(self.model, mix, self.precision, self.ranks.device, seeds, self.dropout)

    def shared_copies(self) -> AbstractContextManager[object]:
        """Return the context of micro-batches whose backward passes come one after another: see `Precision.one_pass`.

        FSDP looks for the gradients of a block when the backward has left it. Through copies of an earlier micro-batch
        they come later, so in a sharded model each has its own.
        """
        return nullcontext() if is_sharded(self.model) else self.precision.one_pass()

    def compute_loss(
        self, mix: Mix, embeddings: tuple[Tensor, Tensor], sizes: list[int], batch: Sequence[Inputs]
    ) -> Tensor:
        """Return the loss over the global batch from the local embeddings, (b, D), of micro-batches of these sizes."""
        image_emb, text_emb = embeddings
        targets = mix.targets(sizes, image_emb.device, self._identities(batch))
        scalars = {name: getattr(self.model, name) for name in self.loss.parameters}
        return self.loss(image_emb, text_emb, scalars, targets, self.ranks.collectives)

    def _identities(self, batch: Sequence[Inputs]) -> Tensor | None:
        device = self.ranks.device
        known = [part.identities.to(device, non_blocking=True) for part in batch if part.identities is not None]
        return torch.cat(known) if known else None  # (b, 2)


@dataclass(frozen=True)
class PlainStep:
    """One forward and one backward; all activations of the local batch are alive at once."""

    context: StepContext

    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        forward = self.context.forward(mix, step, len(batch))
        pairs = [forward(self.context.transfer(inputs), index) for index, inputs in enumerate(batch)]
        self.context.ranks.activity.mark("computing")
        loss = self.context.compute_loss(mix, _joined(pairs), [len(image) for image, _ in pairs], batch)
        # Activation checkpointing goes forward once more in there.
        statistics = BatchStatistics(self.context.model)
        with self.context.gradients.last_backward(), statistics.frozen():
            self.context.precision.backward(loss)
        self.context.gradients.finish()
        statistics.average(self.context.ranks.collectives)
        return loss.detach()


class _Embeddings:
    """Those of all micro-batches of a step, in one tensor a side, (b, D), into which each is written as it comes.

    Many small tensors that live from the first pass to the loss would hold the heap of a CPU apart.
    """

    def __init__(self, micro_batches: int) -> None:
        self._micro_batches = micro_batches
        self._sides: tuple[Tensor, ...] = ()
        self.sizes: list[int] = []  # m of each micro-batch

    @torch.no_grad()
    def add(self, pair: tuple[Tensor, Tensor]) -> None:
        """Take a copy of the embeddings of the next micro-batch, (m, D) each; none is larger than the first."""
        if not self._sides:
            self._sides = tuple(part.new_empty(self._micro_batches * len(part), part.shape[1]) for part in pair)
        start = sum(self.sizes)
        self.sizes.append(len(pair[0]))
        for side, part in zip(self._sides, pair, strict=True):
            side[start : sum(self.sizes)] = part

    def take(self) -> tuple[Tensor, Tensor]:
        """Return both sides, (b, D), as leaves that want a gradient; they are not kept here."""
        image_emb, text_emb = (side[: sum(self.sizes)].requires_grad_() for side in self._sides)
        self._sides = ()
        return image_emb, text_emb


@dataclass(frozen=True)
class _FirstPass:
    """What the first pass gives for micro-batches that will go forward again; the others come after them."""

    constants: list[Constants]  # what need not be computed again
    inputs: KeptInputs


@dataclass(frozen=True)
class DecoupledStep:
    """Decoupled gradient accumulation (arXiv 2112.09331, sec. 3.2), with kept graphs.

    It looks at a micro-batch when its turn comes, so the first ones are encoded while later ones are still being made.

    First pass: embeddings of all micro-batches, without graph but for the last k. Then the exact
    gradient of the loss over the global batch with respect to the embeddings. Second pass, from the last micro-batch
    to the first: one at a time again, with graph, back-propagating that gradient; the k kept ones need no
    second forward. With a backward twice as dear as a forward a step costs 1 + (1 - k/n)/3 of a plain
    one; activations of max(k, 1) micro-batches are alive, however large the batch. So the first graph that is kept
    costs memory only where the loss takes more than a backward does beside it.

    Gradients are added up from the last micro-batch to the first for any k, so that kept graphs change no bit. It is
    the last that are kept: a forward without graph beside them would need room of its own.

    A frozen tower goes forward once: its outputs, (b, w), are kept for the second pass. So are inputs on a GPU, as far
    as the transfer has room for them.
    Towers with batch statistics (BatchNorm) see those of a micro-batch, as in any accumulation; their
    running statistics move in the first pass, so in the order of the micro-batches, and are then averaged
    over the ranks.
    """

    context: StepContext
    kept_graphs: int = 0  # k; all of them where a batch has fewer micro-batches

    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        context = self.context
        forward = context.forward(mix, step, len(batch))
        statistics = BatchStatistics(context.model)
        with context.shared_copies():
            with context.precision.one_pass():
                embeddings = _Embeddings(len(batch))
                first = self._without_graph(forward, batch, embeddings)
                context.precision.forget_copies()  # those have no graph
                kept = self._with_graph(forward, batch, embeddings)
            loss, gradients = self._loss(mix, embeddings, batch)
            with statistics.frozen():
                while kept:  # what a graph holds is free as soon as its backward is over
                    self._backward(kept.pop(), gradients.pop(), last=not gradients)
                self._second_pass(forward, batch, first, gradients)
        context.gradients.finish()
        statistics.average(context.ranks.collectives)
        return loss

    def _loss(
        self, mix: Mix, embeddings: _Embeddings, batch: Sequence[Inputs]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The loss, and its gradients with respect to the embeddings of each micro-batch, (m, D) each."""
        image_emb, text_emb = embeddings.take()
        loss = self.context.compute_loss(mix, (image_emb, text_emb), embeddings.sizes, batch)
        self.context.precision.backward(loss)  # reaches the embeddings, scaled under fp16, and the temperature
        assert image_emb.grad is not None
        assert text_emb.grad is not None
        parts = (side.split(embeddings.sizes) for side in (image_emb.grad, text_emb.grad))
        return loss.detach(), list(zip(*parts, strict=True))

    def _second_pass(
        self, forward: Forward, batch: Sequence[Inputs], first: _FirstPass, gradients: list[tuple[Tensor, Tensor]]
    ) -> None:
        """Forward again and back, of all micro-batches whose graph was not kept."""
        for index in reversed(range(len(first.constants))):
            if not index:
                self._separate_copies()
            known = first.constants[index]
            hidden = forward.hidden(first.inputs.again(index, batch[index], known), index, known)
            self._backward(forward.embeddings(hidden, index), gradients.pop(), last=not gradients)

    def _backward(self, outputs: tuple[Tensor, Tensor], upstream: tuple[Tensor, Tensor], last: bool) -> None:
        self.context.ranks.activity.mark("computing")
        # Activation checkpointing goes forward once more in there.
        with self.context.gradients.last_backward() if last else nullcontext():
            torch.autograd.backward(outputs, upstream)

    def _without_graph(self, forward: Forward, batch: Sequence[Inputs], embeddings: _Embeddings) -> _FirstPass:
        """The first pass of micro-batches that will go forward again; it adds their embeddings."""
        transfer = self.context.transfer
        first = _FirstPass([], KeptInputs(transfer))
        with torch.no_grad():
            for index in range(len(batch) - self.kept_graphs):
                self.context.ranks.activity.mark("computing")
                inputs = batch[index]
                there = transfer(inputs)
                hidden = forward.hidden(there, index)
                known = forward.constants(hidden)
                first.inputs.keep(index, there, known)
                first.constants.append(known)
                embeddings.add(forward.embeddings(hidden, index))
        return first

    def _with_graph(
        self, forward: Forward, batch: Sequence[Inputs], embeddings: _Embeddings
    ) -> list[tuple[Tensor, Tensor]]:
        """The first pass of the other micro-batches: their embeddings, which it adds too, with their graphs."""
        pairs: list[tuple[Tensor, Tensor]] = []
        for index in range(len(embeddings.sizes), len(batch)):
            self.context.ranks.activity.mark("computing")
            pairs.append(forward(self.context.transfer(batch[index]), index))
            embeddings.add(pairs[-1])
            if not index:
                self._separate_copies()
        return pairs

    def _separate_copies(self) -> None:
        """Give the first micro-batch low-precision copies of the weights that no other has, where ranks sum gradients.

        Its backward is the last, in which they are sent. Autograd leaves what was made long ago to the end: gradients
        that come through the copies of another would be there when all others are, too late to be sent on the way.
        """
        if self.context.ranks.world_size > 1 or is_sharded(self.context.model):
            self.context.precision.forget_copies()


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Embeddings of micro-batches, (m, D) each, as those of the local batch, (b, D)."""
    return torch.cat([image for image, _ in pairs]), torch.cat([text for _, text in pairs])
