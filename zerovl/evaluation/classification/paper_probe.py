"""Fit a linear layer by the recipe of the paper.

LARS, learning rate 6.4, momentum 0.9, no weight decay, 90 epochs of batches of 16,384, warm-up over a ninth of the
steps, then a half cosine. It is the slow one beside `linear_probe.fit`, which goes straight to the optimum.

It differs from the paper's in that pictures are embedded once, without RandomResizedCrop and AutoAugment. What the
paper leaves open is ours: features are normalised by their mean and deviation over the training pictures, first weights
are normal with deviation 0.01. A set that is smaller than a batch is one batch, so it takes 90 steps. That is as it
should be: nothing but the number of steps keeps this layer from learning few pictures by heart.

Shapes: `n` pictures, `b` of a batch, `C` classes, `w` width of the tower.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zerovl.evaluation.classification.lars import Lars, warm_up_and_half_cosine
from zerovl.evaluation.classification.linear_probe import Layer

BATCH = 16_384
EPOCHS = 90
PEAK = 6.4
MOMENTUM = 0.9
WARM_UP = 0.1111  # of the steps
_CONSTANT = 1e-6  # of the largest deviation of a feature
_FIRST = 0.01  # deviation of the first weights


def fit(features: Tensor, labels: Tensor, classes: int, seed: int) -> Layer:
    """Fit a layer to features (n, w) of labels (n,); `seed` draws the first weights and the order of the pictures."""
    generator = torch.Generator().manual_seed(seed)
    mean = features.mean(0)
    deviation = features.std(0, correction=0)  # (w,)
    # A feature that is constant over the training pictures says nothing of classes: it is 0, also where it moves later.
    scale = torch.where(deviation > _CONSTANT * deviation.max(), deviation, torch.inf)
    x = ((features - mean) / scale).float()  # (n, w)
    weight = (_FIRST * torch.randn(classes, x.shape[1], generator=generator)).to(x.device)  # (C, w)
    bias = x.new_zeros(classes)
    optimiser = Lars([weight, bias], MOMENTUM)
    steps = EPOCHS * -(-len(x) // BATCH)
    for step, (inputs, targets) in enumerate(_batches(x, labels, generator)):
        error = (inputs @ weight.T + bias).softmax(1)  # (b, C)
        error[torch.arange(len(targets), device=x.device), targets] -= 1.0
        error /= len(targets)  # now the gradient of the mean cross-entropy by the logits
        lr = warm_up_and_half_cosine(step, steps, PEAK, WARM_UP)
        optimiser.step([error.T @ inputs, error.sum(0)], lr)
    return Layer(mean, scale, weight.to(features.dtype), bias.to(features.dtype), penalty=0.0)


def _batches(x: Tensor, labels: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the batches of all epochs, each epoch in an order of its own; a set that is one batch as it is."""
    for _ in range(EPOCHS):
        if len(x) <= BATCH:
            yield x, labels
            continue
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            at = rows.to(x.device)
            yield x[at], labels[at]
