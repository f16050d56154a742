"""Embeddings and the one comparison that the tests of the contrastive loss share."""

from dataclasses import replace

import torch
from torch import Tensor

from zerovl.distributed.collectives import Collectives
from zerovl.objective.dense import dense_contrastive_loss
from zerovl.objective.targets import Targets
from zerovl.objective.tiled import contrastive_loss
from zerovl.objective.tiles import Tiles


def embeddings(
    batch: int, dtype: torch.dtype = torch.float64, width: int = 24, noise: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Normalised, (batch, width) each, leaves; a text resembles its image, the more so the less noise."""
    generator = torch.Generator().manual_seed(batch)
    image, other = torch.randn(2, batch, width, generator=generator, dtype=torch.float64)
    text = image + noise * other
    image, text = (torch.nn.functional.normalize(e, dim=-1).to(dtype) for e in (image, text))
    return image.requires_grad_(), text.requires_grad_()


def mixed_targets(batch: int) -> Targets:
    """Two micro-batches of unequal size where there are three pairs or more."""
    first = torch.arange(batch // 3).flip(0)
    second = torch.arange(batch // 3, batch).flip(0)
    return Targets(0.3, torch.cat([first, second]))


def equal_identities(batch: int) -> Tensor:
    """Captions and pictures, about half of them alone; some pairs are equal to one by this, to another by that."""
    generator = torch.Generator().manual_seed(batch)
    drawn = torch.randint(0, max(1, batch // 2), (batch, 2), generator=generator)
    alone = torch.arange(2 * batch).reshape(batch, 2) + batch
    return torch.where(torch.rand(batch, 2, generator=generator) < 0.5, drawn, alone) * 2**40 - 2**50


def on_cpu(targets: Targets) -> Targets:
    partner, identities = (None if each is None else each.cpu() for each in (targets.partner, targets.identities))
    return replace(targets, partner=partner, identities=identities)


def gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def tiled_and_dense(
    tiles: Tiles | None,
    image: Tensor,
    text: Tensor,
    temperature: float,
    targets: Targets,
    ranks: Collectives | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Loss and its gradients (image, text, temperature), tiled and, from the same rounded rows, dense in float64."""
    t = torch.tensor(temperature, dtype=torch.promote_types(image.dtype, torch.float32), requires_grad=True)
    found = gradients(contrastive_loss(image, text, t, targets, ranks, tiles), image, text, t)
    double = [tensor.detach().cpu().double().requires_grad_() for tensor in (image, text, t)]
    expected = gradients(dense_contrastive_loss(*double, on_cpu(targets)), *double)
    return [value.cpu() for value in found], expected


def relative_errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Largest difference over the largest value, each; not a number where a value is not finite.

    One pair alone has neither loss nor gradient: values below 0.001 count as that.
    """
    return [
        float((a.double() - b).abs().max() / b.abs().max().clamp(min=0.001))
        for a, b in zip(found, expected, strict=True)
    ]
