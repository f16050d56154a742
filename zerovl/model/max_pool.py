"""Max pooling on a CPU where no backward follows: by rows, then by columns.

torch's kernel goes through each window by itself and writes down where its maximum lies, which a backward alone asks
for. Maxima of whole rows, then of columns, are the same values and work on many numbers at once; without graph it is
what the first pass of a decoupled step, an evaluation and a server do (benchmarks/README.md, Step).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PIECE = 2 * 2**20  # bytes of pictures at a time, so that what the rows leave is still in the cache for the columns


class AxisMaxPool2d(nn.MaxPool2d):
    """A max pooling that has its quick form where no graph is made of pictures in a CPU's memory."""

    def forward(self, features: Tensor) -> Tensor:
        """Pool (m, C, H, W) as `nn.MaxPool2d` does: the same values."""
        if not self._separable(features):
            pooled: Tensor = super().forward(features)
            return pooled
        count = max(1, _PIECE // max(1, features[:1].nbytes))
        pieces = [self._pool(piece) for piece in features.split(count)]
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def _separable(self, features: Tensor) -> bool:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or features.device.type != "cpu":
            return False
        usual = _pair(self.dilation) == (1, 1) and not self.ceil_mode and not self.return_indices
        if not usual or features.dim() != 4 or not features.is_contiguous():
            return False
        sizes = zip(features.shape[2:], self._windows(), strict=True)
        return all(2 * padding < kernel <= size + 2 * padding for size, (kernel, _, padding) in sizes)

    def _windows(self) -> list[tuple[int, int, int]]:
        """Kernel, stride and padding, of the height and of the width."""
        return list(zip(_pair(self.kernel_size), _pair(self.stride), _pair(self.padding), strict=True))

    def _pool(self, features: Tensor) -> Tensor:
        for axis, window in enumerate(self._windows()):
            features = _pool_axis(features, 2 + axis, *window)
        return features


def pool_by_axis(tower: nn.Module) -> int:
    """Give the max poolings of a tower their quick form, in place; returns how many. They have no parameters."""
    found = [module for module in tower.modules() if type(module) is nn.MaxPool2d]
    for module in found:
        module.__class__ = AxisMaxPool2d
    return len(found)


def _pool_axis(features: Tensor, dim: int, kernel: int, stride: int, padding: int) -> Tensor:
    """The maximum of each window along one dimension; windows that reach over an edge have what lies inside."""
    size = features.shape[dim]
    count = (size + 2 * padding - kernel) // stride + 1

    def at(offset: int, first: int, last: int) -> Tensor:
        """What lies at an offset from where windows begin that have no padding, of these windows."""
        places = slice(offset + first * stride, offset + last * stride + 1, stride)
        return features[(slice(None),) * dim + (places,)]

    pooled = at(0, 0, count - 1).clone(memory_format=torch.contiguous_format)  # it is inside of every window
    for offset in range(-padding, kernel - padding):
        first = max(0, -(offset // stride))
        last = min(count - 1, (size - 1 - offset) // stride)
        if offset and first <= last:
            windows = pooled.narrow(dim, first, last - first + 1)
            torch.maximum(windows, at(offset, first, last), out=windows)
    return pooled


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
