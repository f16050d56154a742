"""The precision in which the towers compute."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

_DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast of the towers, and for fp16 the scale of the loss."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype = _DTYPES[name]
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the towers run."""
        return torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def one_pass(self) -> AbstractContextManager[object]:
        """Return the context of several micro-batches that share the low-precision copies of the weights.

        `autocast` keeps what it made of a weight until the outermost context ends. This one is off: what is computed
        in it, but outside of `autocast`, is as without. After a pass without gradients the copies are to be forgotten
        (`forget_copies`), as they have no graph. Micro-batches whose graphs one backward goes through together should
        not share: their gradients would be summed before they are float32.
        """
        return torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=False)

    def forget_copies(self) -> None:
        """Let the rest of a pass make its own low-precision copies of the weights."""
        torch.clear_autocast_cache()

    def backward(self, loss: Tensor) -> None:
        """Back-propagate a loss, times the loss scale under fp16.

        There a loss that is not finite makes every gradient NaN, and the scaler skips the step and lowers its scale:
        some gradients could be finite all the same, as none of them is made from the value of the loss.
        """
        if not self.scaler.is_enabled():
            loss.backward()
            return
        scaled: Tensor = self.scaler.scale(loss)
        scaled.backward(torch.ones_like(scaled).masked_fill(~loss.detach().isfinite(), torch.nan))
