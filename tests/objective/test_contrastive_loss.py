"""The tiled loss against the dense one and against plain autograd."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.pairs import embeddings, gradients, mixed_targets, relative_errors, tiled_and_dense
from tests.support.thread_ranks import ThreadRank, on_ranks
from zerovl.objective.dense import dense_contrastive_loss
from zerovl.objective.mixup import Mix, Mixup
from zerovl.objective.targets import Targets
from zerovl.objective.tiled import contrastive_loss
from zerovl.objective.tiles import TorchTiles


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 130])
@pytest.mark.parametrize("tile", [1, 5, 64, 1024])
@pytest.mark.parametrize("temperature", [0.07, 0.012])  # logits within the bound of no shift, and beyond it
@pytest.mark.parametrize("mixed", [False, True])
def test_tiled_equals_dense(batch: int, tile: int, temperature: float, mixed: bool) -> None:
    if tile == 1 and batch > 64:
        pytest.skip("covered by smaller batches")
    targets = mixed_targets(batch) if mixed else Targets()
    found, expected = tiled_and_dense(TorchTiles(torch.float64, tile), *embeddings(batch), temperature, targets)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("temperature", [0.001, 0.0113, 0.0251, 0.5])
def test_float32_is_stable_over_the_whole_clamp(temperature: float) -> None:
    image, text = embeddings(96, torch.float32)
    found, expected = tiled_and_dense(TorchTiles(torch.float32, 32), image, text, temperature, mixed_targets(96))
    assert all(value.isfinite().all() for value in found)
    assert max(relative_errors(found, expected)) < 2e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_rows_are_multiplied_and_summed_in_float32(dtype: torch.dtype) -> None:
    image, text = embeddings(64, dtype)
    found, expected = tiled_and_dense(None, image, text, 0.02, mixed_targets(64))
    assert [value.dtype for value in found] == [torch.float32, dtype, dtype, torch.float32]
    loss, image_error, text_error, temperature_error = relative_errors(found, expected)
    # Only the results are rounded, to half of the distance between two numbers.
    assert max(loss, temperature_error) < 1e-5
    assert max(image_error, text_error) < torch.finfo(dtype).eps / 2 + 1e-5


def test_autocast_does_not_touch_the_products() -> None:
    image, text = embeddings(64, torch.float32)
    t = torch.tensor(0.02, requires_grad=True)
    expected = gradients(contrastive_loss(image, text, t, Targets()), image, text, t)
    with torch.autocast("cpu", torch.bfloat16):
        assert (image @ text.T).dtype == torch.bfloat16
        found = gradients(contrastive_loss(image, text, t, Targets()), image, text, t)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


class _LargestResult(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves(result):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return result


def test_no_tensor_outgrows_the_embeddings() -> None:
    batch, width, tile = 600, 24, 64
    image, text = embeddings(batch, torch.float32, width)
    t = torch.tensor(0.05, requires_grad=True)
    with _LargestResult() as tiled:
        contrastive_loss(image, text, t, mixed_targets(batch), tiles=TorchTiles(torch.float32, tile)).backward()
    with _LargestResult() as dense:
        dense_contrastive_loss(image, text, t, Targets()).backward()
    assert dense.elements >= batch**2  # the counter sees both passes of autograd
    assert tiled.elements <= max(batch * width, 2 * tile**2)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("mixed", [False, True])
def test_ranks_hold_rows_and_see_all_columns(world_size: int, mixed: bool) -> None:
    rows = 43
    image, text = embeddings(rows * world_size)
    local = mixed_targets(rows) if mixed else Targets()
    whole = local
    if local.partner is not None:
        whole = Targets(local.weight, torch.cat([local.partner + rank * rows for rank in range(world_size)]))
    t = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
    loss, *expected = gradients(dense_contrastive_loss(image, text, t, whole), image, text, t)

    def one_rank(rank: ThreadRank) -> list[Tensor]:
        own = [e.detach()[rank.rank * rows :][:rows].clone().requires_grad_() for e in (image, text)]
        leaf = t.detach().clone().requires_grad_()
        value = contrastive_loss(*own, leaf, local, rank, TorchTiles(torch.float64, 32))
        return gradients(value, *own, leaf)

    losses, *found = zip(*on_ranks(world_size, one_rank), strict=True)
    for value in losses:
        torch.testing.assert_close(value, loss, rtol=1e-11, atol=0)
    whole_of = torch.cat(found[0]), torch.cat(found[1]), torch.stack(found[2]).sum()
    for a, b in zip(whole_of, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_upstream_factor_reaches_all_gradients() -> None:
    image, text = embeddings(16)
    t = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    once = torch.autograd.grad(contrastive_loss(image, text, t, Targets()), (image, text, t))
    thrice = torch.autograd.grad(3 * contrastive_loss(image, text, t, Targets()), (image, text, t))
    for a, b in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * a, b)


def test_partner_is_the_reverse_of_each_micro_batch() -> None:
    targets = Mix("image", 0.3).targets([3, 2], torch.device("cpu"))
    assert targets.partner is not None
    assert targets.partner.tolist() == [2, 1, 0, 4, 3]


def test_mixing_is_the_weighted_sum_with_the_reverse() -> None:
    pixels = torch.arange(12.0).reshape(4, 3)
    torch.testing.assert_close(Mix("image", 0.25).images(pixels), 0.25 * pixels + 0.75 * pixels[[3, 2, 1, 0]])
    assert Mix("image", 0.25).text_features(pixels) is pixels
    assert Mix("text", 0.25).images(pixels) is pixels


@pytest.mark.parametrize("mix", [Mix(), Mix("text", 0.3), Mix("image", 0.3), Mix("image", 1.0)])
def test_raw_pixels_are_normalised_and_mixed_at_once(mix: Mix) -> None:
    raw = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28)))
    expected = mix.images((raw / 255 - mean) / std)
    found = mix.raw_images(raw, 1 / (255 * std), -mean / std)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert found.dtype == torch.float32


def test_coin_is_fair_and_a_pure_function_of_seed_and_step() -> None:
    mixup = Mixup("coin", 0.1, seed=3)
    draws = [mixup.draw(step) for step in range(4000)]
    assert draws[1234] == Mixup("coin", 0.1, seed=3).draw(1234)
    heads = sum(draw.side == "image" for draw in draws)
    assert abs(heads - 2000) < 4 * (4000 * 0.25) ** 0.5
    weights = torch.tensor([draw.weight for draw in draws])
    assert abs(float(weights.mean()) - 0.5) < 0.03
    # Beta(0.1, 0.1) has variance 1 / (4 x 1.2)
    assert abs(float(weights.var()) - 1 / 4.8) < 0.01
    assert {Mixup("image", 0.1, 0).draw(s).side for s in range(20)} == {"image"}
    assert Mixup("none", 0.1, 0).draw(0) == Mix()
