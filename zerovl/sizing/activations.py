"""What a micro-batch keeps for the backward pass, measured: bytes as a straight line over its pairs.

Shapes: m pairs of a micro-batch.

On CUDA the allocator counts. On the CPU every tensor that an operation makes is followed until its
storage is freed, so the same code measures fake tensors, which have shapes and no bytes: a model is
then measured without being there. Workspaces inside a kernel are not seen on the CPU.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

from zerovl.device import uses_gpu

SIZES = (4, 8)  # pairs; two points give the line
Run = Callable[[int], Sequence[Tensor]]  # m -> what the towers give for m pairs, with graph where grad mode is on


@dataclass(frozen=True)
class Line:
    """Bytes over pairs: `fixed` + `per_pair` x m; the copies of weights that autocast makes are the fixed part."""

    fixed: float
    per_pair: float

    def __call__(self, pairs: int) -> int:
        return max(0, round(self.fixed + self.per_pair * pairs))

    @classmethod
    def through(cls, sizes: Sequence[int], values: Sequence[int]) -> Line:
        """Return the line through two points."""
        slope = (values[1] - values[0]) / (sizes[1] - sizes[0])
        return cls(values[0] - slope * sizes[0], slope)


@dataclass(frozen=True)
class Activations:
    """Bytes beyond weights, gradients and what else was there before."""

    kept: Line  # the graph after a forward pass, until its backward pass
    peak: Line  # the highest point of forward and backward pass, graph included
    forward: Line  # the highest point of a forward pass without graph


class Meter(Protocol):
    """Bytes of tensors made since the block was entered."""

    @property
    def live(self) -> int:
        """Bytes that are held now."""

    @property
    def peak(self) -> int:
        """The most bytes that were held at once."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LiveTensors(TorchDispatchMode):
    """Follows every storage that an operation makes until it is freed; real and fake tensors alike."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        # An output may be a view of an input.
        given = {storage._cdata for storage in _storages((args, *kwargs.values()))}
        for storage in _storages(made):
            if storage._cdata not in given:
                self._follow(storage)
        return made

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def freed(_: object) -> None:
            del self._known[key]
            self.live -= size

        self._known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    """Of what an operation takes or gives: tensors, alone or in lists; `tree_leaves` would look at each number too."""
    if isinstance(values, Tensor):
        # A wrapper (DTensor) has no storage of its own, the tensors inside come by themselves.
        if values.layout == torch.strided and not is_traceable_wrapper_subclass(values):
            yield values.untyped_storage()
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _storages(value)


class CudaAllocator:
    """The counters of PyTorch's CUDA allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @property
    def live(self) -> int:
        """Bytes that are held now, beyond those at the start."""
        return torch.cuda.memory_allocated(self._device) - self._before

    @property
    def peak(self) -> int:
        """The most bytes that were held at once, beyond those at the start."""
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def __enter__(self) -> Self:
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.cuda.synchronize(self._device)


def meter_of(device: torch.device) -> Meter:
    """Return the meter for a device."""
    return CudaAllocator(device) if device.type == "cuda" else LiveTensors()


def measure(model: nn.Module, run: Run, device: torch.device, sizes: tuple[int, int] = SIZES) -> Activations:
    """Forward and backward of two small micro-batches; the model, its `.grad` and all random states stay as they are.

    Args:
        run: makes a forward pass of m pairs; see `zerovl.sizing.synthetic`.
    """
    with untouched(model, device):
        run_backward(run(sizes[0]))  # from here on there are gradients to add to, as in all but the first backward
        return lines(run, device, sizes)


def lines(run: Run, device: torch.device, sizes: tuple[int, int] = SIZES) -> Activations:
    """Measure forward and backward of two small micro-batches; parameters that learn have gradients to add to."""
    points = [_measure_one(run, size, device) for size in sizes]
    kept, peak, forward = zip(*points, strict=True)
    return Activations(Line.through(sizes, kept), Line.through(sizes, peak), Line.through(sizes, forward))


def _measure_one(run: Run, size: int, device: torch.device) -> tuple[int, int, int]:
    with meter_of(device) as meter, torch.no_grad():
        run(size)
        forward = meter.peak
    with meter_of(device) as meter:
        outputs = run(size)
        kept = meter.live
        run_backward(outputs)
        return kept, meter.peak, forward


def run_backward(outputs: Sequence[Tensor]) -> None:
    """Back-propagate ones from the outputs that learn."""
    learned = [output for output in outputs if output.requires_grad]
    torch.autograd.backward(learned, [torch.ones_like(output) for output in learned])


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """In the block the model is in training mode without gradients; after it all is as before.

    Put back: random states, gradients, buffers (statistics of BatchNorm), mode, and CUDA's cache.
    Compiled towers run uncompiled: each new m would be compiled again.
    """
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    with _random_states(device), torch.compiler.set_stance("force_eager"):
        try:
            model.zero_grad(set_to_none=True)
            model.train()
            yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            for module, mode in modes:
                module.training = mode
            release(device)


def _random_states(device: torch.device) -> AbstractContextManager[None]:
    """Fake tensors can name a GPU that is not there."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" and uses_gpu() else [])


def release(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda" and uses_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
