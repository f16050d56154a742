"""LARS: momentum whose step of each matrix is a share of the matrix's own length, so that large batches learn.

    d = gradient + weight_decay x w
    d = d x trust x |w| / |d|     of matrices whose |w| and |d| are above 0; vectors (biases) take d as it is
    m = momentum x m + d
    w = w - lr x m

Source: You, Gitman and Ginsburg, Large Batch Training of Convolutional Networks (arXiv 1708.03888), algorithm 1, in the
form in which it is used for linear probes: the learning rate scales the momentum and not what enters it, and biases are
left out (He et al., Masked Autoencoders Are Scalable Vision Learners, arXiv 2111.06377, appendix A.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TRUST = 0.001  # the coefficient of both sources


class Lars:
    """Moves parameters against their gradients, in place."""

    def __init__(self, parameters: Sequence[Tensor], momentum: float, weight_decay: float = 0.0) -> None:
        self._parameters = parameters
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._velocities = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lr: float) -> None:
        """Take a step with a gradient a parameter, in their order."""
        for parameter, gradient, velocity in zip(self._parameters, gradients, self._velocities, strict=True):
            if parameter.ndim > 1:
                direction = gradient + self._weight_decay * parameter
                ratio = TRUST * parameter.norm() / direction.norm()
                # Not scaled where a length is 0; by a mask, since a branch on the value would wait for the device.
                scaled = torch.isfinite(ratio) & (ratio > 0)
                direction = direction * torch.where(scaled, ratio, torch.ones_like(ratio))
            else:
                direction = gradient
            velocity.mul_(self._momentum).add_(direction)
            parameter.sub_(velocity, alpha=lr)


def warm_up_and_half_cosine(step: int, steps: int, peak: float, warm_up: float) -> float:
    """Return the learning rate of a step, from 0: linear up to `peak` over a share of the steps, then a half cosine."""
    rising = warm_up * steps
    if step < rising:
        return peak * (step + 1) / max(rising, 1.0) if rising >= 1.0 else peak
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(steps - rising, 1.0)))
