"""Build modules whose weights are about to be read, without drawing random ones first.

Of a ViT-B/32 and its text tower, 151 million numbers, drawing them took most of the time of loading (4.5 of 6 s of a
processor). Only parameters are left as memory has them: buffers that are in no file are computed as ever. What is drawn
into memory of its own first, as `nn.init.trunc_normal_` does, is drawn all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# Names of what draws numbers, or makes others of those that were drawn, in place. By name, since transformers puts
# functions of its own in the place of torch's while it builds a tower.
_FILLS = {"uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_"}
_FILLS |= {name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")}

_Module = TypeVar("_Module", bound=nn.Module)


class UndrawnParameters(TorchFunctionMode):
    """Leaves every `nn.Parameter` as it was allocated while the block lasts; all are to be filled afterwards."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, but for those that fill a parameter."""
        named = kwargs or {}
        filled = args[0] if args else named.get("tensor")
        if isinstance(filled, nn.Parameter) and getattr(func, "__name__", "") in _FILLS:
            return filled
        return func(*args, **named)


def undrawn(build: Callable[[], _Module]) -> _Module:
    """Return what `build` makes, its parameters not filled; torch's random state stays as it was."""
    with torch.random.fork_rng(devices=[]), UndrawnParameters():
        return build()
