"""Zero-shot classification against a slow reference, its ties, intervals and templates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.fake_world import FakeEncoder, caption
from tests.support.labelled_sets import COLOURS
from zerovl import params
from zerovl.evaluation.classification.templates import fill, templates_of
from zerovl.evaluation.classification.zero_shot import (
    accuracies,
    accuracy_intervals,
    by_class,
    class_embeddings,
    hits_of,
    predicted,
)

TEMPLATES = ("{} .", "7 {}", "one {c} and {c}")


def drawn(pictures: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Embeddings of pictures and classes, and labels; a picture lies near its class, but not always nearest."""
    generator = torch.Generator().manual_seed(seed)
    of_classes = torch.nn.functional.normalize(torch.randn(classes, 16, generator=generator), dim=1)
    labels = torch.randint(classes, (pictures,), generator=generator)
    images = of_classes[labels] + 0.5 * torch.randn(pictures, 16, generator=generator)
    return torch.nn.functional.normalize(images, dim=1), of_classes, labels.numpy()


def test_equals_a_loop_over_classes_templates_and_pictures() -> None:
    model, names = FakeEncoder(), [caption(colour) for colour in COLOURS]
    of_classes = class_embeddings(model, names, TEMPLATES, batch_size=4)
    for name, row in zip(names, of_classes, strict=True):
        mean = sum(model.encode_text([fill(template, name)])[0] for template in TEMPLATES) / len(TEMPLATES)
        torch.testing.assert_close(row, mean / mean.norm())

    images, of_classes, labels = drawn(60, 9)
    hits = hits_of(images, of_classes, labels, chunk=7)
    found = predicted(images, of_classes, chunk=7)
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        order = sorted(range(9), key=lambda place: -float(image @ of_classes[place]))
        assert hits["top1"][row] == (order[0] == label)
        assert hits["top5"][row] == (label in order[:5])
        assert found[row] == order[0]
    values = accuracies(hits, labels, 9)
    shares = [np.mean(hits["top1"][labels == label]) for label in range(9) if (labels == label).any()]
    assert values == pytest.approx(
        {"top1": 100 * hits["top1"].mean(), "top5": 100 * hits["top5"].mean(), "mean_class": 100 * np.mean(shares)}
    )
    np.testing.assert_allclose(by_class(hits["top1"], labels, 9), 100 * np.array(shares))


def test_a_model_that_sees_nothing_scores_chance_and_equal_names_share() -> None:
    labels = np.arange(8) % 4
    hits = hits_of(torch.ones(8, 3), torch.ones(4, 3), labels, chunk=3)
    assert hits["top1"].tolist() == [0.25] * 8
    assert "top5" not in hits
    model, names = FakeEncoder(), ["colour 1 2 3", "colour 200 9 9", "colour 1 2 3"]
    of_classes = class_embeddings(model, names, TEMPLATES, batch_size=1)
    assert of_classes[0].equal(of_classes[2])
    assert hits_of(of_classes, of_classes, np.arange(3), chunk=8)["top1"].tolist() == [0.5, 1.0, 0.5]


def test_intervals_are_those_of_drawing_pictures_by_hand() -> None:
    images, of_classes, labels = drawn(40, 6)
    hits = hits_of(images, of_classes, labels, chunk=64)
    intervals = accuracy_intervals(hits, labels, 6, resamples=50, seed=3)
    generator, values = np.random.default_rng(3), []
    for _ in range(50):
        rows = generator.integers(40, size=40)
        its = labels[rows], hits["top1"][rows]
        values.append([100 * its[1].mean(), 100 * np.mean([its[1][its[0] == label].mean() for label in set(its[0])])])
    for name, column in zip(("top1", "mean_class"), np.array(values).T, strict=True):
        interval = intervals[name]
        assert [interval.low, interval.high] == pytest.approx(np.quantile(column, [0.025, 0.975]).tolist())
        assert interval.value == accuracies(hits, labels, 6)[name]
    assert accuracy_intervals(hits, labels, 6, 50, 3) == intervals


def test_named_templates_are_there_and_fit() -> None:
    counts = {name: len(templates_of(name, ())) for name in params.TEMPLATE_SETS}
    assert counts == {"auto": 1, "name": 1, "photo": 1, "openai-imagenet-7": 7, "openai-imagenet-80": 80}
    eighty = set(templates_of("openai-imagenet-80", ()))
    assert set(templates_of("openai-imagenet-7", ())) <= eighty
    assert len(eighty) == 80
    assert all(fill(template, "x") != template for template in eighty)
    assert templates_of("auto", ("a {c}",)) == ("a {c}",)
    assert templates_of(["my {}"], ("a {c}",)) == ("my {}",)


def test_names_are_put_in_as_they_are() -> None:
    assert fill("a {} near a {}", "{} {c} {0}") == "a {} {c} {0} near a {} {c} {0}"
    assert fill("{c}, {}", "b") == "b, b"
