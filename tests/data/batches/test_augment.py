import math
import pickle
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, RandomResizedCrop
from torchvision.transforms import functional as F

from zerovl.data.batches.augmentation import RATIO, PillowTransform, random_crop_box, to_tensor
from zerovl.data.batches.auto_augment import IMAGENET_POLICY, OPERATIONS, auto_augment, magnitude_of
from zerovl.params import AugmentParams

SIGNED = ("ShearX", "Color", "Contrast", "Sharpness")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    grid = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)


def odd_pictures() -> list[Image.Image]:
    """Where histograms are degenerate."""
    two = np.zeros((9, 9, 3), dtype=np.uint8)
    two[4, 4] = (255, 1, 0)
    return [
        picture(64, 64),
        picture(37, 91, 1),
        Image.new("RGB", (8, 8), (7, 7, 7)),
        Image.fromarray(two),
        picture(1, 1),
        Image.fromarray(np.random.default_rng(0).integers(100, 140, (224, 224, 3), dtype=np.uint8)),
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (33, 224, 3), dtype=np.uint8) ** 2),
    ]


def test_the_policy_is_the_papers_as_torchvision_has_it() -> None:
    theirs = AutoAugment(AutoAugmentPolicy.IMAGENET).policies
    expected = [tuple((name, probability, level or 0) for name, probability, level in pair) for pair in theirs]
    assert list(IMAGENET_POLICY) == expected


def grey_where_nothing_is(turned: Image.Image) -> Image.Image:
    """A turned RGBA picture over grey, by its own transparency."""
    return Image.composite(turned, Image.new("RGBA", turned.size, (128, 128, 128, 128)), turned).convert("RGB")


# The operations by their description: a picture and a level (k / 9 of the range), and which way where there are two.
DESCRIBED: dict[str, Callable[[Image.Image, int, int], Image.Image]] = {
    "ShearX": lambda image, k, sign: image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, sign * 0.3 * k / 9, 0, 0, 1, 0),
        Image.Resampling.BICUBIC,
        fillcolor=(128, 128, 128),
    ),
    "Rotate": lambda image, k, _: grey_where_nothing_is(image.convert("RGBA").rotate(30 * k / 9)),
    "Color": lambda image, k, sign: ImageEnhance.Color(image).enhance(1 + sign * 0.9 * k / 9),
    "Contrast": lambda image, k, sign: ImageEnhance.Contrast(image).enhance(1 + sign * 0.9 * k / 9),
    "Sharpness": lambda image, k, sign: ImageEnhance.Sharpness(image).enhance(1 + sign * 0.9 * k / 9),
    "Posterize": lambda image, k, _: ImageOps.posterize(image, (8, 8, 7, 7, 6, 6, 5, 5, 4, 4)[k]),
    "Solarize": lambda image, k, _: ImageOps.solarize(image, 256 - 256 * k / 9),  # type: ignore[arg-type]
    "AutoContrast": lambda image, _k, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _k, _: ImageOps.equalize(image),
    "Invert": lambda image, _k, _: ImageOps.invert(image),
}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_operations_are_those_of_the_description_pixel_for_pixel(name: str) -> None:
    for level in range(10):
        for sign in (1, -1):
            magnitude = magnitude_of(name, level, negative=sign < 0)
            for image in odd_pictures():
                ours, described = OPERATIONS[name](image, magnitude), DESCRIBED[name](image, level, sign)
                np.testing.assert_array_equal(np.asarray(ours), np.asarray(described))


def test_pictures_turn_one_way_and_what_comes_into_view_is_grey() -> None:
    marked = np.full((41, 41, 3), 255, dtype=np.uint8)
    marked[18:23, 36:41] = (255, 0, 0)  # at three o'clock
    for negative in (False, True):
        magnitude = magnitude_of("Rotate", 9, negative=negative)
        turned = np.asarray(OPERATIONS["Rotate"](Image.fromarray(marked), magnitude))
        rows = np.flatnonzero((turned == (255, 0, 0)).all(axis=2).any(axis=1))
        assert rows.mean() < 15  # it went up
        assert all((turned[corner] == 128).all() for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)))
    # The lower right and the lower left corner look for pixels 0.3 * 41 beyond the border.
    white = Image.new("RGB", (41, 41), (255, 255, 255))
    right, left = (
        np.asarray(OPERATIONS["ShearX"](white, magnitude_of("ShearX", 9, negative=n))) for n in (False, True)
    )
    assert (right[-1, -12:] == 128).all()
    assert (left[-1, :12] == 128).all()
    assert (right[-1, :28] == 255).all()


def test_operations_happen_as_often_as_the_policy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(OPERATIONS, 0)
    negatives = 0

    def counter(name: str) -> object:
        def count(image: Image.Image, magnitude: float) -> Image.Image:
            nonlocal negatives
            counts[name] += 1
            negatives += magnitude < 0
            return image

        return count

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, counter(name))
    rng, image, draws = Random(0), picture(8, 8), 40_000
    for _ in range(draws):
        auto_augment(image, rng)
    signed_share = 0.0
    for name, seen in counts.items():
        share = sum(p for pair in IMAGENET_POLICY for n, p, _ in pair if n == name) / 25
        assert seen / draws == pytest.approx(share, abs=4 * math.sqrt(share / draws))
        signed_share += sum(p for pair in IMAGENET_POLICY for n, p, v in pair if n == name and name in SIGNED and v)
    assert negatives / draws == pytest.approx(signed_share / 25 / 2, abs=0.01)


def test_crops_are_within_bounds_and_spread_like_torchvisions() -> None:
    rng, width, height, scale = Random(0), 200, 150, (0.6, 1.0)
    boxes = np.array([random_crop_box(width, height, scale, rng) for _ in range(4000)])
    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(image, scale, RATIO) for _ in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()
    area = w * h / (width * height)
    assert area.min() > 0.59
    for ours, reference in (
        (boxes[:, 1], theirs[:, 0]),
        (boxes[:, 0], theirs[:, 1]),
        (h, theirs[:, 2]),
        (w, theirs[:, 3]),
    ):
        error = math.hypot(ours.std(), reference.std()) / math.sqrt(4000)
        assert abs(ours.mean() - reference.mean()) < 4 * error
        assert ours.std() == pytest.approx(reference.std(), rel=0.08)


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000), (1, 1), (3, 200)])
def test_crop_of_a_strip_is_central(width: int, height: int) -> None:
    left, upper, right, lower = random_crop_box(width, height, (0.9, 1.0), Random(0))
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height
    assert abs((left + right) - width) <= 1
    assert abs((upper + lower) - height) <= 1


def test_without_auto_augment_it_is_torchvisions_resized_crop() -> None:
    transform = PillowTransform(48, AugmentParams(auto_augment=False))
    for seed in range(10):
        image = picture(120, 90, seed)
        left, upper, right, lower = random_crop_box(120, 90, transform.augment.crop_scale, Random(seed))
        reference = F.resized_crop(image, upper, left, lower - upper, right - left, [48, 48])
        torch.testing.assert_close(transform(image, seed), F.pil_to_tensor(reference), rtol=0, atol=0)


def test_a_pure_function_of_picture_and_seed() -> None:
    transform = PillowTransform(32, AugmentParams())
    image = picture(64, 64)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = [transform(image, seed) for seed in range(30)]
    assert torch.equal(torch.get_rng_state(), state)
    copy = pickle.loads(pickle.dumps(transform))
    for seed in reversed(range(30)):
        torch.testing.assert_close(copy(image, seed), first[seed], rtol=0, atol=0)
    assert all(tensor.shape == (3, 32, 32) and tensor.dtype == torch.uint8 for tensor in first)
    assert len({tensor.numpy().tobytes() for tensor in first}) == 30


def test_to_tensor_is_torchvisions() -> None:
    image = picture(7, 5)
    tensor = to_tensor(image)
    assert tensor.is_contiguous()
    assert torch.equal(tensor, F.pil_to_tensor(image))


def test_a_flip_mirrors_the_crop_and_without_one_nothing_is_drawn() -> None:
    image = picture(40, 30)
    plain, flipped = (PillowTransform(24, AugmentParams(flip_probability=share)) for share in (0.0, 1.0))
    assert torch.equal(flipped(image, 5), plain(image, 5).flip(-1))
    half = PillowTransform(24, AugmentParams(flip_probability=0.5))
    mirrored = [torch.equal(half(image, seed), flipped(image, seed)) for seed in range(200)]
    assert 70 < sum(mirrored) < 130
    assert all(torch.equal(half(image, seed), plain(image, seed)) for seed in range(200) if not mirrored[seed])
