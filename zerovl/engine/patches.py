"""The convolution that cuts a picture into patches, as the one matrix product that it is.

On an H100 cuDNN computes it, three channels in and patches that do not overlap, without tensor cores: 4.3 of the 169 ms
of a compiled step of 512 pairs (ViT-B/16, bf16), and 1.4 more for turning its input round. With the product a step
takes 164 ms (torch 2.11; benchmarks/README.md).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PatchProjection(nn.Conv2d):
    """A convolution whose step is its kernel, computed as a product of patches and weights."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Project the patches of (m, C, H, W) to (m, D, H / kernel, W / kernel); what is left at an edge is cut off."""
        rows, columns = self.kernel_size
        m, channels, height, width = pixels.shape
        down, across = height // rows, width // columns
        cut = pixels[:, :, : down * rows, : across * columns]
        patches = cut.reshape(m, channels, down, rows, across, columns).permute(0, 2, 4, 1, 3, 5)
        flat = patches.reshape(m, down, across, channels * rows * columns)
        return F.linear(flat, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def project_patches(tower: nn.Module) -> int:
    """Compute the convolutions of a tower that cut its pixels into patches as products, in place; returns how many.

    Names and shapes of parameters stay.
    """
    found = [module for module in tower.modules() if type(module) is nn.Conv2d and _cuts_pixels(module)]
    for module in found:
        module.__class__ = PatchProjection
    return len(found)


def _cuts_pixels(module: nn.Conv2d) -> bool:
    """Whether pixels come in, and each is read once."""
    whole = module.stride == module.kernel_size and module.dilation == (1, 1) and module.groups == 1
    return whole and module.padding in ((0, 0), "valid", 0) and module.in_channels == 3
