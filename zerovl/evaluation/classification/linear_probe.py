"""Classify by a linear layer on what the frozen image tower gives, before its projection.

The layer is a multinomial logistic regression. Its objective is convex, so L-BFGS (Liu and Nocedal, Mathematical
Programming 45, 1989) finds the one best layer without a learning rate: mean cross-entropy + penalty / 2 x |W|^2, the
bias free. The penalty is the one with the lowest cross-entropy on a held-out fifth of the training pictures; then the
layer is fitted to all of them. The one picture of a class is never held out: nothing would be known of it. As a
protocol it is that of Radford et al. (arXiv 2103.00020, appendix A.3), with fewer
penalties and without augmentation.

Shapes: `n` pictures, `C` classes, `w` width of the tower, `r` = min(n, w).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zerovl.evaluation.pool import Ints

PENALTIES = tuple(10.0**power for power in range(0, -7, -1))  # of features of mean squared length 1, strongest first
FOLDS = 5
IN_NO_FOLD = -1
_STEPS = 200  # of L-BFGS a penalty, each starting from the layer of the stronger one before
_FLAT = 1e-6  # largest entry of the gradient at which it stops


@dataclass(frozen=True)
class Layer:
    """A linear classifier of features (n, w)."""

    mean: Tensor  # (w,) of the training features
    scale: Tensor  # () their root mean squared distance from it, or (w,) one a feature
    weight: Tensor  # (C, w)
    bias: Tensor  # (C,)
    penalty: float

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of features (n, w): (n, C)."""
        return (features - self.mean) / self.scale @ self.weight.T + self.bias


def fit_path(features: Tensor, labels: Tensor, classes: int, penalties: Sequence[float]) -> Iterator[Layer]:
    """Fit a layer a penalty to features (n, w) of labels (n,); penalties go from strong to weak.

    With fewer pictures than features the fit is done in the r directions that the pictures span: the penalty makes the
    layer zero in all others, so it is the same layer.
    """
    mean = features.mean(0)
    scale = (features - mean).square().sum(1).mean().sqrt().clamp_min(torch.finfo(features.dtype).tiny)
    x = (features - mean) / scale
    spanned = len(x) < x.shape[1]
    basis = torch.linalg.svd(x, full_matrices=False).Vh if spanned else torch.eye(0)  # (r, w)
    x = x @ basis.T if spanned else x  # (n, r)
    weight, bias = x.new_zeros(classes, x.shape[1]), x.new_zeros(classes)
    for penalty in penalties:
        weight, bias = _minimise(x, labels, weight, bias, penalty)
        yield Layer(mean, scale, weight @ basis if spanned else weight, bias, penalty)


def fit(features: Tensor, labels: Tensor, classes: int, seed: int) -> Layer:
    """Choose the penalty on a held-out fifth of features (n, w), then fit to all; `seed` draws the fifth.

    Where each class has one picture none can be held out, and the penalty is the strongest.
    """
    held = torch.from_numpy(folds_of(labels.cpu().numpy(), FOLDS, seed) == 0).to(labels.device)
    path = list(fit_path(features[~held], labels[~held], classes, PENALTIES))
    losses = [float(torch.nn.functional.cross_entropy(its.logits(features[held]), labels[held])) for its in path]
    best = int(np.argmin(losses)) if held.any() else 0
    *_, layer = fit_path(features, labels, classes, PENALTIES[: best + 1])
    return layer


class Fit(Protocol):
    """Fits a layer to features (n, w) of labels (n,), by what it draws with a seed."""

    def __call__(self, features: Tensor, labels: Tensor, classes: int, seed: int) -> Layer:
        """Return the layer."""
        ...


@dataclass(frozen=True)
class Probed:
    """What a linear probe says of pictures that its layers never saw."""

    predicted: Ints  # (n,)
    scored: npt.NDArray[np.bool_]  # (n,) of the others, the one picture of a class in folds, nothing is predicted
    penalties: tuple[float, ...]  # that were chosen, one a layer

    def right(self, labels: Ints) -> npt.NDArray[np.bool_]:
        """Return whether each of the s scored pictures is what labels (n,) say: (s,)."""
        right: npt.NDArray[np.bool_] = (self.predicted == labels)[self.scored]
        return right


def probe(features: Tensor, labels: Ints, training: tuple[Tensor, Ints] | None, seed: int, fit: Fit = fit) -> Probed:
    """Classify features (n, w) by layers fitted to `training`, or where there is none to the other folds of their own.

    Of folds the one picture of a class is in none: all layers learn from it, and it is not scored. Layers know the
    classes that they learn from: the bias of one without a picture would have no best value.

    Args:
        features: of the pictures that are scored.
        labels: (n,) their classes.
        training: features and labels of a split to train on.
        seed: of the folds, and of what `fit` draws.
        fit: how a layer is fitted.
    """
    features = features.double()
    known, numbers = np.unique(labels if training is None else training[1], return_inverse=True)
    targets, classes = torch.from_numpy(numbers).to(features.device), len(known)
    if training is not None:
        layer = fit(training[0].double(), targets, classes, seed)
        predicted = known[layer.logits(features).argmax(1).cpu().numpy()]
        return Probed(predicted, np.ones(len(labels), np.bool_), (layer.penalty,))
    guesses, chosen = np.zeros(len(labels), np.int64), []
    folds = folds_of(labels, FOLDS, seed)
    for fold in range(FOLDS):
        seen = torch.from_numpy(folds != fold).to(features.device)
        layer = fit(features[seen], targets[seen], classes, seed + 1)
        guesses[folds == fold] = layer.logits(features[~seen]).argmax(1).cpu().numpy()
        chosen.append(layer.penalty)
    return Probed(known[guesses], folds != IN_NO_FOLD, tuple(chosen))


def folds_of(labels: Ints, folds: int, seed: int) -> Ints:
    """Deal the pictures of each class (n,) out over folds, as evenly as they go: (n,) from 0 to folds - 1.

    The one picture of a class is `IN_NO_FOLD`.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # class by class, shuffled within
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = order[counts[numbers[order]] > 1]
    dealt = np.full(len(labels), IN_NO_FOLD, np.int64)
    dealt[order] = np.arange(len(order)) % folds
    return dealt


def _minimise(x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Return the layer (C, r), (C,) with the lowest objective, from the one given."""
    weight, bias = weight.detach().clone().requires_grad_(), bias.detach().clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, tolerance_grad=_FLAT, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(objective)
    return weight.detach(), bias.detach()
