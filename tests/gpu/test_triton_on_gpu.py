"""The contrastive loss on a GPU against float64: in Triton where it is the fastest way, at odd and at large sizes."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.support.pairs import embeddings, mixed_targets
from zerovl.objective.dense import dense_contrastive_loss
from zerovl.objective.targets import Targets
from zerovl.objective.tiled import contrastive_loss, fastest_tiles

pytestmark = pytest.mark.gpu

LARGE, WIDTH, TEMPERATURE = 262_144, 512, 0.05
COLUMNS = 2048  # of the float64 reference at once: 4 GiB of logits
ROWS = 64  # whose gradient is compared
LOSS_TOLERANCE = 1e-4  # relative
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}  # of gradients


@pytest.mark.parametrize("batch", [1, 127, 9001])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mixed", [False, True])
def test_odd_sizes_equal_the_dense_loss(batch: int, dtype: torch.dtype, mixed: bool, device: torch.device) -> None:
    image, text = (e.detach().to(device).requires_grad_() for e in embeddings(batch, dtype, width=72))
    targets = mixed_targets(batch) if mixed else Targets()
    if targets.partner is not None:
        targets = Targets(targets.weight, targets.partner.to(device))
    in_triton = type(fastest_tiles(image, text)).__name__ == "TritonTiles"
    assert in_triton == (dtype.itemsize == 2 and device.type == "cuda")
    exact = torch.promote_types(dtype, torch.float32)
    leaves = image, text, torch.tensor(TEMPERATURE, dtype=exact, device=device, requires_grad=True)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    found, expected = (
        [loss.detach(), *torch.autograd.grad(loss, inputs)]
        for loss, inputs in (
            (contrastive_loss(*leaves, targets), leaves),
            (dense_contrastive_loss(*doubles, targets), doubles),
        )
    )
    torch.testing.assert_close(found[0].double(), expected[0], rtol=LOSS_TOLERANCE, atol=1e-5)
    for mine, reference in zip(found[1:], expected[1:], strict=True):
        # Of the largest value. One pair alone has none: there, of the terms that cancel, 1 / (batch x temperature).
        size = max(float(reference.abs().max()), 0.05 / (batch * TEMPERATURE))
        assert float((mine.double() - reference).abs().max()) <= TOLERANCES[dtype] * size


@dataclass(frozen=True)
class Exact:
    """Loss, and the first ROWS rows of the gradient of the images, in float64."""

    loss: Tensor
    image_gradient: Tensor  # (ROWS, D)


@torch.no_grad()
def exact(image: Tensor, text: Tensor) -> Exact:
    """Sweep over all logits (B, COLUMNS) at a time: the whole matrix would be 512 GiB."""
    image, text = image.double() / TEMPERATURE, text.double()  # (B, D)
    batch = len(image)
    row_lse = image.new_full((batch,), -torch.inf)
    column_lse = image.new_empty(batch)
    for start in range(0, batch, COLUMNS):
        logits = image @ text[start : start + COLUMNS].T
        column_lse[start : start + COLUMNS] = logits.logsumexp(0)
        row_lse = torch.logaddexp(row_lse, logits.logsumexp(1))
        del logits
    loss = (row_lse.sum() + column_lse.sum()) / (2 * batch) - (image * text).sum() / batch
    logits = image[:ROWS] @ text.T  # (ROWS, B)
    weights = (logits - row_lse[:ROWS, None]).exp() + (logits - column_lse).exp()
    weights[:, :ROWS] -= 2 * torch.eye(ROWS, dtype=weights.dtype, device=weights.device)
    return Exact(loss, weights @ text / (2 * batch * TEMPERATURE))


@pytest.mark.timeout(300)
def test_262144_rows_in_the_memory_of_their_embeddings(device: torch.device) -> None:
    """Captions resemble their pictures a little: the loss is neither that of chance nor 0."""
    generator = torch.Generator(device).manual_seed(0)
    image, other = (torch.randn(LARGE, WIDTH, generator=generator, device=device) for _ in range(2))
    image, text = (
        torch.nn.functional.normalize(each, dim=-1).bfloat16().requires_grad_() for each in (image, 0.6 * image + other)
    )
    del other
    temperature = torch.tensor(TEMPERATURE, device=device, requires_grad=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    loss = contrastive_loss(image, text, temperature, Targets())
    loss.backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        accumulators = 2 * 4 * LARGE * WIDTH
        assert torch.cuda.max_memory_allocated(device) - before < 2.5 * accumulators
    for leaf in (image, text, temperature):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    expected = exact(image, text)
    torch.testing.assert_close(loss.detach().double(), expected.loss, rtol=LOSS_TOLERANCE, atol=0)
    assert image.grad is not None
    error = (image.grad[:ROWS].double() - expected.image_gradient).norm() / expected.image_gradient.norm()
    assert error <= TOLERANCES[torch.bfloat16]
