"""The linear probe against plain gradient descent, and what it may and may not learn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zerovl.evaluation.classification.linear_probe import PENALTIES, Layer, fit, fit_path, folds_of, probe


def drawn(pictures: int, width: int, classes: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Features around a centre a class, and their labels, every class equally often."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    labels = torch.arange(pictures) % classes
    features = centres[labels] + noise * torch.randn(pictures, width, generator=generator, dtype=torch.float64) + 3
    return features, labels.numpy()


def objective(
    x: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, penalty: float
) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(x @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()


def by_gradient_descent(features: torch.Tensor, labels: torch.Tensor, classes: int, penalty: float) -> Layer:
    """Fit in all directions of the features, with momentum and without any other trick."""
    mean = features.mean(0)
    scale = (features - mean).square().sum(1).mean().sqrt()
    x = (features - mean) / scale
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.SGD([weight, bias], lr=1.0, momentum=0.9)
    for _ in range(600):
        optimiser.zero_grad()
        objective(x, labels, weight, bias, penalty).backward()
        optimiser.step()
    return Layer(mean, scale, weight.detach(), bias.detach(), penalty)


@pytest.mark.parametrize(("pictures", "width"), [(60, 7), (24, 40)])
def test_equals_plain_gradient_descent(pictures: int, width: int) -> None:
    features, numbers = drawn(pictures, width, classes=4, noise=1.5)
    labels = torch.from_numpy(numbers)
    for layer in fit_path(features, labels, 4, (0.1, 0.03)):
        slow = by_gradient_descent(features, labels, 4, layer.penalty)
        torch.testing.assert_close(layer.weight, slow.weight, atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(layer.logits(features), slow.logits(features), atol=1e-3, rtol=1e-3)


def test_the_gradient_is_nought_at_every_penalty() -> None:
    features, numbers = drawn(40, 10, classes=3, noise=2.0)
    labels = torch.from_numpy(numbers)
    for layer in fit_path(features, labels, 3, PENALTIES[:5]):
        weight, bias = layer.weight.clone().requires_grad_(), layer.bias.clone().requires_grad_()
        objective((features - layer.mean) / layer.scale, labels, weight, bias, layer.penalty).backward()
        assert float(weight.grad.abs().max()) < 1e-5  # type: ignore[union-attr]
        assert float(bias.grad.abs().max()) < 1e-5  # type: ignore[union-attr]


def test_the_penalty_is_strong_for_noise_and_weak_for_what_is_clear() -> None:
    clear, numbers = drawn(60, 8, classes=3, noise=0.05)
    noise = torch.randn(60, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.from_numpy(numbers)
    assert fit(clear, labels, 3, seed=0).penalty < 1e-3
    assert fit(noise, labels, 3, seed=0).penalty >= 1e-2


def test_folds_are_even_in_every_class_and_depend_on_the_seed_alone() -> None:
    labels = np.array([0] * 11 + [1] * 5 + [2] * 3)
    folds = folds_of(labels, 5, seed=0)
    assert np.array_equal(folds, folds_of(labels, 5, seed=0))
    assert not np.array_equal(folds, folds_of(labels, 5, seed=1))
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(folds).tolist() == [4, 4, 4, 4, 3]


def test_every_picture_is_classified_by_a_layer_that_never_saw_it() -> None:
    """Of noise a layer gives back every label that it saw, and guesses those that it did not."""
    clear, labels = drawn(50, 16, classes=5, noise=0.2)
    found = probe(clear.float(), labels, None, seed=0)
    assert (found.predicted == labels).all()
    assert len(found.penalties) == 5
    noise = torch.randn(50, 200, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    *_, layer = fit_path(noise, torch.from_numpy(labels), 5, PENALTIES[:3])
    assert (layer.logits(noise).argmax(1).numpy() == labels).all()
    assert (probe(noise.float(), labels, None, seed=0).predicted == labels).mean() < 0.5


def test_with_a_training_split_the_scored_labels_are_not_looked_at() -> None:
    features, labels = drawn(60, 12, classes=3, noise=1.0)
    training = features[:40].float(), labels[:40]
    found = probe(features[40:].float(), labels[40:], training, seed=0)
    other = probe(features[40:].float(), (labels[40:] + 1) % 3, training, seed=0)
    assert np.array_equal(found.predicted, other.predicted)
    assert len(found.penalties) == 1
    assert (found.predicted == labels[40:]).mean() > 0.6


@pytest.mark.parametrize("split", [True, False])
def test_classes_without_a_picture_change_nothing(split: bool) -> None:
    """Numbers of classes with gaps between them are the same three classes."""
    features, labels = drawn(60, 12, classes=3, noise=1.0)
    spread = np.array([1, 4, 9])[labels]
    found, gaps = (
        probe(features.float(), its, (features.float(), its) if split else None, seed=0) for its in (labels, spread)
    )
    assert np.array_equal(gaps.predicted, np.array([1, 4, 9])[found.predicted])
    assert gaps.penalties == found.penalties
