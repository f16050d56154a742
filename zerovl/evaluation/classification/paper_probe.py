"""Fit a linear layer by the recipe of the paper.

LARS, learning rate 6.4, momentum 0.9, no weight decay, 90 epochs of batches of 16,384, warm-up over a ninth of the
steps, then a half cosine. It is the slow one beside `linear_probe.fit`, which goes straight to the optimum.

`fit` learns from features that were computed once. `probe_by_views` does as the paper does: each epoch shows another
RandomResizedCrop and AutoAugment of each picture (`views.py`). What the paper leaves open is ours: features are
normalised by their mean and deviation over the training pictures as evaluation sees them, first weights are normal with
deviation 0.01. A set that is smaller than a batch is one batch, so it takes 90 steps. That is as it should be: nothing
but the number of steps keeps this layer from learning few pictures by heart.

Shapes: `n` pictures, `b` of a batch, `C` classes, `w` width of the tower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from zerovl.evaluation.classification.lars import Lars, warm_up_and_half_cosine
from zerovl.evaluation.classification.linear_probe import FOLDS, IN_NO_FOLD, Layer, Probed, folds_of
from zerovl.evaluation.pool import Ints

BATCH = 16_384
EPOCHS = 90
PEAK = 6.4
MOMENTUM = 0.9
WARM_UP = 0.1111  # of the steps
_CONSTANT = 1e-6  # of the largest deviation of a feature
_FIRST = 0.01  # deviation of the first weights
_ROWS = 65_536  # that are normalised at a time, as the numbers in between may have 64 bits

Views = Callable[[int], Tensor]  # an epoch -> features (n, w) of the training pictures as it shows them


class LayerInTraining:
    """Learns a linear layer epoch by epoch; features may differ from epoch to epoch, the pictures may not."""

    def __init__(self, features: Tensor, classes: int, seed: int) -> None:
        """Start from features (n, w) of the training pictures, which give the normalisation, and from a seed."""
        self._generator = torch.Generator().manual_seed(seed)
        self._mean = features.mean(0)
        deviation = features.std(0, correction=0)  # (w,)
        # A feature that is constant over the training pictures says nothing of classes: it is 0, also where it moves.
        self._scale = torch.where(deviation > _CONSTANT * deviation.max(), deviation, torch.inf)
        first = _FIRST * torch.randn(classes, features.shape[1], generator=self._generator)
        self._weight = first.to(features.device)  # (C, w)
        self._bias = self._weight.new_zeros(classes)
        self._optimiser = Lars([self._weight, self._bias], MOMENTUM)
        self._steps = EPOCHS * -(-len(features) // BATCH)
        self._step = 0

    def normalised(self, features: Tensor) -> Tensor:
        """Return features (n, w) by the mean and deviation of those that it started from, float32."""
        found = torch.empty_like(features, dtype=torch.float32)
        for part, into in zip(features.split(_ROWS), found.split(_ROWS), strict=True):
            into.copy_((part - self._mean) / self._scale)
        return found

    def epoch(self, x: Tensor, labels: Tensor) -> None:
        """Take the steps of one epoch on normalised features (n, w) of labels (n,)."""
        for inputs, targets in _batches(x, labels, self._generator):
            error = (inputs @ self._weight.T + self._bias).softmax(1)  # (b, C)
            error[torch.arange(len(targets), device=x.device), targets] -= 1.0
            error /= len(targets)  # now the gradient of the mean cross-entropy by the logits
            lr = warm_up_and_half_cosine(self._step, self._steps, PEAK, WARM_UP)
            self._optimiser.step([error.T @ inputs, error.sum(0)], lr)
            self._step += 1

    def layer(self) -> Layer:
        """Return the layer as it is now, in the number format of the features that it began with."""
        weight, bias = self._weight.to(self._mean.dtype), self._bias.to(self._mean.dtype)
        return Layer(self._mean, self._scale, weight, bias, penalty=0.0)


def fit(features: Tensor, labels: Tensor, classes: int, seed: int) -> Layer:
    """Fit a layer to features (n, w) of labels (n,); `seed` draws the first weights and the order of the pictures."""
    learning = LayerInTraining(features, classes, seed)
    x = learning.normalised(features)  # (n, w)
    for _ in range(EPOCHS):
        learning.epoch(x, labels)
    return learning.layer()


def probe_by_views(
    features: Tensor, labels: Ints, training: tuple[Tensor, Ints] | None, seed: int, views: Views
) -> Probed:
    """Classify features (n, w) as `linear_probe.probe` does, by layers that learn from a new view each epoch.

    Args:
        features: of the pictures that are scored.
        labels: (n,) their classes.
        training: features and labels of a split to train on; None: the other folds.
        seed: of the folds and of the layers.
        views: features of the training pictures in an epoch, asked for once an epoch. Folds share them.
    """
    if training is None:
        folds, learned, of_learned, first = folds_of(labels, FOLDS, seed), features, labels, seed + 1
        asked = folds != IN_NO_FOLD
        scored = [torch.from_numpy(folds == fold).to(features.device) for fold in range(FOLDS)]
        seen = [~its for its in scored]
    else:
        learned, of_learned, first = training[0], training[1], seed
        asked = np.ones(len(labels), np.bool_)
        scored = [torch.ones(len(labels), dtype=torch.bool, device=features.device)]
        seen = [torch.ones(len(of_learned), dtype=torch.bool, device=features.device)]
    known, numbers = np.unique(of_learned, return_inverse=True)
    targets = torch.from_numpy(numbers).to(features.device)
    learning = [LayerInTraining(learned[rows].double(), len(known), first) for rows in seen]
    for epoch in tqdm(range(EPOCHS), desc="probe by views", unit="epoch", leave=False):
        shown = views(epoch).to(features.device)  # (n, w)
        for its, rows in zip(learning, seen, strict=True):
            its.epoch(its.normalised(shown[rows]), targets[rows])
    guesses = np.zeros(len(labels), np.int64)
    for its, rows in zip(learning, scored, strict=True):
        guesses[rows.cpu().numpy()] = its.layer().logits(features[rows].double()).argmax(1).cpu().numpy()
    return Probed(known[guesses], asked, tuple(0.0 for _ in learning))


def _batches(x: Tensor, labels: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the batches of an epoch in an order of its own; a set that is one batch as it is."""
    if len(x) <= BATCH:
        yield x, labels
        return
    for rows in torch.randperm(len(x), generator=generator).split(BATCH):
        at = rows.to(x.device)
        yield x[at], labels[at]
