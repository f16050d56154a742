"""What training makes of stored pictures, against `PillowTransform`, its slow reference."""

import io
import pickle
from itertools import product
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from zerovl.data.batches.augmentation import PillowTransform, TrainTransform, reduced, whole
from zerovl.data.batches.auto_augment import OPERATIONS, auto_augment, draw_operations, magnitude_of
from zerovl.data.batches.plane_operations import ON_PLANES, apply_operations
from zerovl.images import BrokenImageError, decode_rgb
from zerovl.params import AugmentParams


def picture(width: int, height: int, seed: int = 0, noise: int = 20) -> Image.Image:
    """Soft patches under noise."""
    random = np.random.default_rng(seed)
    patches = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((width, height), 3)
    grain = random.integers(-noise, noise + 1, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(patches) + grain, 0, 255).astype(np.uint8))


def stored(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(300, 200), (97, 131), (64, 64), (31, 20), (400, 9), (1, 1)])
def test_crops_are_pillows_to_one_level(size: tuple[int, int]) -> None:
    augment = AugmentParams(crop_scale=(0.6, 1.0), flip_probability=0.5)
    fast, slow = TrainTransform(64, augment), PillowTransform(64, augment)
    data = stored(picture(*size), quality=92)
    differing = []
    for seed in range(12):
        found, expected = fast(data, seed), slow(decode_rgb(data), seed)
        assert found.shape == expected.shape == (3, 64, 64)
        assert found.dtype == torch.uint8
        assert found.is_contiguous()
        apart = (found.int() - expected.int()).abs()
        assert int(apart.max()) <= 1
        differing.append(float(apart.float().mean()))
    assert np.mean(differing) < 0.1  # of the values; most where the sides' ratio makes many sums end in a half


def test_a_crop_that_is_not_resized_is_pillows_to_the_bit() -> None:
    """So the rest of the way is exact: the draws, the flip, the operations."""
    augment = AugmentParams(crop_scale=(1.0, 1.0), flip_probability=0.5, auto_augment=True)
    fast, slow = TrainTransform(48, augment), PillowTransform(48, augment)
    data = stored(picture(48, 48), quality=92)
    for seed in range(150):
        assert torch.equal(fast(data, seed), slow(decode_rgb(data), seed))


@pytest.mark.parametrize("name", sorted(ON_PLANES))
def test_operations_on_planes_are_the_references(name: str) -> None:
    flat = np.full((9, 8, 3), 7, dtype=np.uint8)
    two = np.zeros((9, 9, 3), dtype=np.uint8)
    two[4, 4] = (255, 1, 0)
    narrow = np.random.default_rng(0).integers(100, 140, (40, 50, 3), dtype=np.uint8)
    for pixels in (np.asarray(picture(64, 48)), narrow, flat, two, np.zeros((1, 1, 3), np.uint8)):
        for level in range(10):
            magnitude = magnitude_of(name, level, negative=False)
            before = pixels.copy()
            expected = np.asarray(OPERATIONS[name](Image.fromarray(pixels), magnitude)).transpose(2, 0, 1)
            np.testing.assert_array_equal(apply_operations(pixels, [(name, magnitude)]), expected)
            np.testing.assert_array_equal(pixels, before)


def test_operations_in_a_row_are_the_references() -> None:
    """What follows a histogram's table goes into the table."""
    for names in product(sorted(ON_PLANES), repeat=3):
        operations = [(name, magnitude_of(name, 6, negative=False)) for name in names]
        for pixels in (np.asarray(picture(24, 20)), np.full((5, 4, 3), 200, dtype=np.uint8)):
            expected = Image.fromarray(pixels)
            for name, magnitude in operations:
                expected = OPERATIONS[name](expected, magnitude)
            found = apply_operations(pixels, operations)
            np.testing.assert_array_equal(found, np.asarray(expected).transpose(2, 0, 1), err_msg=str(names))


def test_drawn_operations_are_the_references() -> None:
    image = picture(33, 29)
    several = 0
    for seed in range(300):
        drawn = draw_operations(Random(seed))
        several += len(drawn) == 2
        expected = np.asarray(auto_augment(image, Random(seed))).transpose(2, 0, 1)
        np.testing.assert_array_equal(apply_operations(np.asarray(image), drawn), expected)
    assert several > 50


@pytest.mark.parametrize(
    ("box", "reduction"), [((0, 0, 400, 300), 4), ((0, 0, 400, 299), 2), ((9, 9, 159, 159), 2), ((9, 9, 158, 200), 1)]
)
def test_pictures_are_decoded_smaller_where_the_crop_has_pixels_to_spare(
    box: tuple[int, int, int, int], reduction: int
) -> None:
    assert reduced(box, 100) == reduction
    assert whole(box, 100) == 1


def test_fast_decoding_draws_the_same_and_shows_nearly_the_same() -> None:
    exact, fast = (
        TrainTransform(48, AugmentParams(crop_scale=(0.6, 1.0), flip_probability=0.5, decode=decode))
        for decode in ("exact", "fast")
    )
    data = stored(picture(151, 117, noise=4), quality=95)
    for seed in range(12):
        apart = (exact(data, seed).int() - fast(data, seed).int()).abs().float()
        assert 0 < float(apart.mean()) < 5
    small = stored(picture(40, 40))  # less than a crop becomes
    assert all(torch.equal(exact(small, seed), fast(small, seed)) for seed in range(3))
    png = stored(picture(151, 117), "PNG")  # no JPEG is decoded whole
    assert all(torch.equal(exact(png, seed), fast(png, seed)) for seed in range(3))


def test_a_pure_function_of_bytes_and_seed() -> None:
    transform = TrainTransform(32, AugmentParams(auto_augment=True))
    first, second = stored(picture(90, 70)), stored(picture(120, 130, 1))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found = [(transform(first, seed), transform(second, seed)) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), state)
    copy = pickle.loads(pickle.dumps(transform))
    for seed in reversed(range(8)):  # in another order, and with the memory of the picture before
        assert torch.equal(copy(second, seed), found[seed][1])
        assert torch.equal(copy(first, seed), found[seed][0])
    assert len(pickle.dumps(transform)) < 2000


def test_bytes_that_do_not_decode() -> None:
    transform = TrainTransform(16, AugmentParams())
    for data in (b"", b"no picture", stored(picture(40, 40))[:300]):
        with pytest.raises(BrokenImageError):
            transform(data, 0)
