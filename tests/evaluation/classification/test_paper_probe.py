"""The paper's linear probe: LARS by values that were worked out by hand, and the fast probe's accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.paths import SHARED
from zerovl.evaluation.classification import linear_probe, paper_probe
from zerovl.evaluation.classification.lars import Lars, warm_up_and_half_cosine
from zerovl.evaluation.classification.sets import read_set
from zerovl.evaluation.classification.zero_shot import TOP1, accuracy_intervals
from zerovl.params import ClassificationParams

GROCERY = SHARED / "photos_classes" / "grocery"


def test_steps_of_a_matrix_are_a_share_of_its_length() -> None:
    """|w| 5 and |g| 2: g x 0.001 x 5 / 2 = (0, 0.005); then |w| is 4.992 and momentum adds 0.9 of it."""
    weight = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    lars = Lars([weight], momentum=0.9)
    gradient = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    lars.step([gradient], lr=2.0)
    assert weight.tolist() == [[3.0, pytest.approx(3.99)]]
    length = (9 + 3.99**2) ** 0.5
    lars.step([gradient], lr=2.0)
    assert weight.tolist() == [[3.0, pytest.approx(3.99 - 2.0 * (0.9 * 0.005 + 0.001 * length))]]


def test_weight_decay_counts_in_the_direction_and_biases_take_the_gradient_itself() -> None:
    """d = (0, 2) + 0.5 x (3, 4) = (1.5, 4), |d| = 4.272: the step is 0.5 x 0.001 x 5 / 4.272 x d."""
    weight, bias = torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.tensor([1.0, 1.0], dtype=torch.float64)
    Lars([weight, bias], 0.9, weight_decay=0.5).step([torch.tensor([[0.0, 2.0]]), torch.tensor([0.5, -1.0])], lr=0.5)
    assert weight.tolist() == [[pytest.approx(3.0 - 0.000877799), pytest.approx(4.0 - 0.002340797)]]
    assert bias.tolist() == [0.75, 1.5]


def test_a_matrix_of_zeros_takes_the_gradient_itself() -> None:
    weight = torch.zeros(1, 2)
    Lars([weight], 0.9).step([torch.tensor([[3.0, 4.0]])], lr=1.0)
    assert weight.tolist() == [[-3.0, -4.0]]
    Lars([weight], 0.9).step([torch.zeros(1, 2)], lr=1.0)
    assert weight.tolist() == [[-3.0, -4.0]]


def test_the_rate_rises_and_falls() -> None:
    rates = [warm_up_and_half_cosine(step, 90, 6.4, 10 / 90) for step in range(90)]
    assert rates[:10] == pytest.approx([0.64 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(6.4)
    assert rates[50] == pytest.approx(3.2)
    assert 0 < rates[-1] < 0.01


def test_batches_of_a_large_set_hold_each_picture_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_probe, "BATCH", 4)
    x, generator = torch.arange(10.0)[:, None], torch.Generator().manual_seed(0)
    epochs = [list(paper_probe._batches(x, torch.arange(10), generator)) for _ in range(2)]
    assert [[len(labels) for _, labels in batches] for batches in epochs] == [[4, 4, 2], [4, 4, 2]]
    first, second = (torch.cat([labels for _, labels in batches]) for batches in epochs)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    assert all(torch.equal(inputs[:, 0].long(), labels) for batches in epochs for inputs, labels in batches)


@pytest.mark.skipif(not GROCERY.is_dir(), reason="the photographs are not here")
def test_both_probes_agree_on_real_pictures_within_their_intervals() -> None:
    """On 16 x 16 colours of groceries, half of each class to learn from."""
    found = read_set(ClassificationParams(name="grocery", folder=str(GROCERY)))
    features = torch.stack([_colours(its.picture.path) for its in found.pictures])
    labels = torch.tensor([its.label for its in found.pictures])
    scored = torch.from_numpy(linear_probe.folds_of(labels.numpy(), 2, seed=0) == 0)
    intervals = []
    for fit in (linear_probe.fit, paper_probe.fit):
        layer = fit(features[~scored], labels[~scored], len(found.classes), 0)
        hits = {TOP1: (layer.logits(features[scored]).argmax(1) == labels[scored]).double().numpy()}
        intervals.append(accuracy_intervals(hits, labels[scored].numpy(), len(found.classes), 200, 0)[TOP1])
    fast, paper = intervals
    assert fast.low < paper.value < fast.high
    assert paper.low < fast.value < paper.high
    assert min(fast.low, paper.low) > 3 * 100 / len(found.classes)  # far above chance


def _colours(path: str) -> torch.Tensor:
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((16, 16))
    return torch.from_numpy(np.asarray(small, np.float64).reshape(-1) / 255)


def test_a_feature_that_is_constant_in_training_decides_nothing() -> None:
    """A unit that no training picture wakes has a random weight, which must not speak for a picture that wakes it."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    labels = (features[:, 0] > 0).long()
    features[:, 2] = 0.25
    layer = paper_probe.fit(features, labels, 2, seed=0)
    awake = features.clone()
    awake[:, 2] += 1e-3
    torch.testing.assert_close(layer.logits(awake), layer.logits(features))


def test_parts_are_normalised_to_the_same_bits_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    layer = paper_probe.LayerInTraining(features.double(), 2, seed=0)
    whole = ((features.double() - layer._mean) / layer._scale).float()
    monkeypatch.setattr(paper_probe, "_ROWS", 16)
    assert torch.equal(layer.normalised(features), whole)
    assert torch.equal(layer.normalised(features.double()), whole)


@pytest.mark.parametrize("split", [False, True])
def test_views_that_never_change_give_the_layers_of_features_that_are_computed_once(
    monkeypatch: pytest.MonkeyPatch, split: bool
) -> None:
    """With batches of 16 both draw an order an epoch too."""
    monkeypatch.setattr(paper_probe, "BATCH", 16)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=generator)
    labels = 2 * (features[:, 0] + 0.5 * torch.randn(60, generator=generator) > 0).long().numpy()  # class 1 is empty
    training = (features[:40] + 0.1, labels[:40]) if split else None
    learned = features if training is None else training[0]
    asked: list[int] = []

    def views(epoch: int) -> torch.Tensor:
        asked.append(epoch)
        return learned

    shown = paper_probe.probe_by_views(features, labels, training, 3, views)
    once = linear_probe.probe(features, labels, training, 3, paper_probe.fit)
    assert shown.predicted.tolist() == once.predicted.tolist()
    assert shown.penalties == once.penalties
    assert 0.6 < (shown.predicted == labels).mean() < 1  # some are hard, so that agreeing says something
    assert asked == list(range(90))
