"""The tiled loss against the dense one and against plain autograd."""

import pytest
import torch
from torch import Tensor

from zerovl.objective.dense import dense_contrastive_loss
from zerovl.objective.mixup import Mix, Mixup
from zerovl.objective.targets import Targets
from zerovl.objective.tiled import contrastive_loss


def embeddings(batch: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    pair = torch.randn(2, batch, 24, generator=generator, dtype=torch.float64)
    image, text = torch.nn.functional.normalize(pair, dim=-1).to(dtype).unbind(0)
    return image.clone().requires_grad_(), text.clone().requires_grad_()


def gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [loss, *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 130])
@pytest.mark.parametrize("tile", [1, 5, 64, 1024])
@pytest.mark.parametrize("mixed", [False, True])
def test_tiled_equals_dense(batch: int, tile: int, mixed: bool) -> None:
    if tile == 1 and batch > 64:
        pytest.skip("covered by smaller batches")
    image, text = embeddings(batch)
    temperature = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
    targets = Mix("text", 0.3).targets([batch], image.device) if mixed else Targets()
    expected = gradients(dense_contrastive_loss(image, text, temperature, targets), image, text, temperature)
    found = gradients(contrastive_loss(image, text, temperature, targets, tile=tile), image, text, temperature)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.001, 0.0113, 0.5])
def test_float32_is_stable_over_the_whole_clamp(temperature: float) -> None:
    image, text = embeddings(96, torch.float32)
    t = torch.tensor(temperature, requires_grad=True)
    found = gradients(contrastive_loss(image, text, t, Targets(), tile=32), image, text, t)
    double = [tensor.detach().double().requires_grad_() for tensor in (image, text, t)]
    expected = gradients(dense_contrastive_loss(*double, Targets()), *double)
    for a, b in zip(found, expected, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a.double(), b, rtol=2e-4, atol=1e-4 * float(b.abs().max()))


def test_bfloat16_rows_are_accumulated_in_float32() -> None:
    image, text = embeddings(64, torch.bfloat16)
    t = torch.tensor(0.02, requires_grad=True)
    found = gradients(contrastive_loss(image, text, t, Targets()), image, text, t)
    double = [tensor.detach().double().requires_grad_() for tensor in (image, text, t)]
    expected = gradients(dense_contrastive_loss(*double, Targets()), *double)
    assert found[1].dtype == torch.bfloat16
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=1e-6)


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
