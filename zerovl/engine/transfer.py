"""Micro-batches on their way to the device: on a stream of their own, beside the computation, and once a step.

Shapes: m pairs of a micro-batch, H x W pixels, L tokens, w width of a tower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from zerovl.engine.forward import Constants, Images, Inputs

ROOM = 512 << 20  # bytes of inputs that stay on a GPU between the passes: 3,500 pairs at 224 pixels
UNKNOWN = Constants(None, None)


@dataclass(frozen=True)
class Moved:
    """A micro-batch on the device; nothing (0,) stands for a side that needs no forward any more."""

    images: Tensor  # (m, 3, H, W) or (m, w)
    input_ids: Tensor  # (m, L) or (m, w)
    attention_mask: Tensor  # (m, L)
    identities: Tensor | None  # (m, 2), where the loader left them

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.images.nbytes + self.input_ids.nbytes + self.attention_mask.nbytes


def moved(inputs: Inputs, known: Constants, copy: Callable[[Images], Tensor]) -> Moved:
    """Return what `copy` makes of each tensor of a micro-batch, but for sides whose features are `known`."""
    nothing = torch.empty(0)
    images = nothing if known.image is not None else copy(inputs.images)
    if known.text is not None:
        return Moved(images, nothing, nothing, inputs.identities)
    return Moved(images, copy(inputs.input_ids), copy(inputs.attention_mask), inputs.identities)


class Transfer(Protocol):
    """Brings micro-batches to the device."""

    @property
    def room(self) -> int:
        """Bytes of them that may stay there from the first pass of a step to the second."""
        ...

    def __call__(self, inputs: Inputs, known: Constants = UNKNOWN) -> Inputs:
        """Return a micro-batch on the device, for a forward pass of what is not `known`."""
        ...


class NoTransfer:
    """For the CPU, in whose memory the inputs are: nothing is moved and nothing kept."""

    room = 0

    def __call__(self, inputs: Inputs, known: Constants = UNKNOWN) -> Inputs:
        """Return them as they are."""
        return inputs


NO_TRANSFER = NoTransfer()


class OwnStream:
    """Copies to a GPU on a stream of their own, so that they run while it computes; from page-locked memory.

    The host is ahead of the GPU, so the copies of a micro-batch are given to it while an earlier one is computed.
    Pictures that are decoded on their way are decoded on that stream too.
    """

    def __init__(self, device: torch.device, room: int = ROOM) -> None:
        self.room = room
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def __call__(self, inputs: Inputs, known: Constants = UNKNOWN) -> Inputs:
        """Return copies that what is computed from now on may use."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            copies = moved(inputs, known, lambda tensor: tensor.to(self._device, non_blocking=True))
        computing.wait_stream(self._stream)
        for tensor in (copies.images, copies.input_ids, copies.attention_mask):
            if tensor.is_cuda:
                tensor.record_stream(computing)  # its memory is of the other stream, and is used on this one
        return copies


def transfer_to(device: torch.device) -> Transfer:
    """Return the way to a device."""
    return OwnStream(device) if device.type == "cuda" else NO_TRANSFER


class KeptInputs:
    """Micro-batches that stay on the device from the first pass to the second, as many as the transfer has room for."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._room = transfer.room
        self._kept: dict[int, Moved] = {}

    def keep(self, index: int, inputs: Inputs, known: Constants) -> None:
        """Keep of a micro-batch on the device what is not `known`, where there is room."""
        needed = moved(inputs, known, lambda there: cast(Tensor, there))
        if needed.nbytes <= self._room:
            self._room -= needed.nbytes
            self._kept[index] = needed

    def again(self, index: int, inputs: Inputs, known: Constants) -> Inputs:
        """Return a micro-batch on the device for the second pass and let go of it; moved again if it was not kept."""
        return self._kept.pop(index, None) or self._transfer(inputs, known)
