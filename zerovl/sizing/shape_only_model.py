"""A model that is planned with before it is there: parameters, FLOPs and activations without weights or data.

Towers are built on torch's meta device, then run with fake tensors: every operation gives shapes and
data types, none gives numbers. A ViT-B takes seconds and no memory, for a GPU that is not here too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from zerovl.engine.frozen_features import Side
from zerovl.engine.model_options import checkpoint_activations, freeze_first_blocks
from zerovl.engine.precision import Precision
from zerovl.engine.residual_stream import lower_streams
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.towers import from_architecture
from zerovl.params import TrainParams
from zerovl.sizing.activations import SIZES, Activations, Line, LiveTensors, lines, untouched
from zerovl.sizing.synthetic import make_inputs, make_mix, tower_pass

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters by part."""

    image_tower: int
    text_tower: int
    projections: int
    learned: int
    buffers: int  # elements of buffers, which are no parameters

    @property
    def total(self) -> int:
        """All parameters of the model."""
        return self.image_tower + self.text_tower + self.projections


@dataclass(frozen=True)
class TowerFlops:
    """FLOPs of one forward pass a pair (a multiplication and an addition are two)."""

    image: float
    text: float


def imagine(architecture: Architecture) -> DualEncoder:
    """The model on the meta device; towers that cannot be built there are built on the CPU first."""
    try:
        with torch.device("meta"):
            return from_architecture(architecture)
    except (RuntimeError, NotImplementedError):
        return from_architecture(architecture).to("meta")


def apply_train_options(model: DualEncoder, train: TrainParams, checkpointed: bool) -> None:
    """Freeze towers and blocks, lower residual streams, checkpoint activations, in place, as training will."""
    freeze_first_blocks(model, train.fine_tuning)
    for side in train.freeze:
        model.freeze(side)
    if train.residual_stream == "low":
        lower_streams(model)
    if checkpointed:
        checkpoint_activations(model)


def count(model: nn.Module) -> Parameters:
    """Return the numbers of parameters of a dual encoder."""

    def number(part: nn.Module) -> int:
        return sum(parameter.numel() for parameter in part.parameters())

    assert isinstance(model.image_tower, nn.Module)
    assert isinstance(model.text_tower, nn.Module)
    image, text = number(model.image_tower), number(model.text_tower)
    learned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Parameters(image, text, number(model) - image - text, learned, sum(b.numel() for b in model.buffers()))


def forward_flops(model: DualEncoder, tokens: int, side: int = 0) -> TowerFlops:
    """Of a model on the meta device; counts matrix products, convolutions and attention.

    Attention is counted by its two products: PyTorch 2.11 does not count its fused kernel for CPUs.
    """
    pairs = 2
    with _fake(model, torch.device("cpu")) as model, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        inputs = make_inputs(model, pairs, tokens, side)
        with FlopCounterMode(display=False) as image:
            model.image_features(model.normalise(inputs.images))
        with FlopCounterMode(display=False) as text:
            model.text_features(inputs.input_ids, inputs.attention_mask)
    return TowerFlops(image.get_total_flops() / pairs, text.get_total_flops() / pairs)


def activations(
    model: DualEncoder,
    device: str,
    precision: str,
    tokens: int,
    mixup: str,
    known: Collection[Side] = (),
    side: int = 0,
) -> Activations:
    """Of a model on the meta device, as if it ran on `device` ("cpu" or "cuda").

    Without a GPU the backward pass of a GPU cannot be followed. What it needs beyond the kept graph is
    then taken from the CPU's. The features of sides that are `known` are read from a cache.
    """
    host = _activations(model, "cpu", precision, tokens, mixup, known, side)
    if device == "cpu":
        return host
    kept = _kept(model, precision, tokens, mixup, known, side)
    extra = Line(host.peak.fixed - host.kept.fixed, host.peak.per_pair - host.kept.per_pair)
    return Activations(kept, Line(kept.fixed + extra.fixed, kept.per_pair + extra.per_pair), host.forward)


def _activations(
    model: DualEncoder, device: str, precision: str, tokens: int, mixup: str, known: Collection[Side], side: int
) -> Activations:
    place = torch.device(device)
    with _fake(model, place) as model:
        run = tower_pass(model, make_mix(mixup), _PlannedPrecision(precision, place), place, tokens, known, side)
        with untouched(model, place):
            for parameter in model.parameters():  # what a first backward pass would leave, without its cost
                parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
            return lines(run, place)


class _PlannedPrecision(Precision):
    """Autocast for a kind of device that may not be on this machine; `torch.autocast` would turn itself off."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype = _DTYPES.get(name)
        self.device = device

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.dtype is None else _autocast(self.device.type, self.dtype)


def _kept(model: DualEncoder, precision: str, tokens: int, mixup: str, known: Collection[Side], side: int) -> Line:
    """The graph of a micro-batch on a GPU."""
    found = []
    device = torch.device("cuda", 0)
    with _fake(model, device) as model, _FusedAttention():
        run = tower_pass(model, make_mix(mixup), _PlannedPrecision(precision, device), device, tokens, known, side)
        with untouched(model, device):
            for size in SIZES:
                with LiveTensors() as meter:
                    outputs = run(size)
                    found.append(meter.live)
                    del outputs
    return Line.through(SIZES, found)


@contextmanager
def _fake(model: DualEncoder, device: torch.device) -> Iterator[DualEncoder]:
    """A copy of a meta model whose tensors claim to be on `device`, in a block in which all tensors are fake."""
    model = deepcopy(model)

    def claimed(tensor: Tensor) -> Tensor:
        # `to_empty` would first convert each tensor into a fake one, which costs more than to make one.
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    with FakeTensorMode(allow_non_fake_inputs=True):
        yield model._apply(claimed)  # type: ignore[no-untyped-call]


@contextmanager
def _autocast(device: str, dtype: torch.dtype) -> Iterator[None]:
    enabled, before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, before)


class _FusedAttention(TorchFunctionMode):
    """Attention as a GPU runs it: without one, PyTorch would take the kernel that keeps the whole score matrix."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        return _attention(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> Tensor:
    """`scaled_dot_product_attention` by the memory-efficient kernel; (m, heads, L, w) each."""
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    if attn_mask is not None:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).expand(*query.shape[:-1], key.shape[-2])
    output: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, True, dropout_p, is_causal
    )[0]
    return output
