"""The losses that are measured, their inputs, and their errors against float64.

Shapes: B pairs, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.common import Record, Results, find_all, rounded
from benchmarks.peers import Loss, open_clip_loss
from zerovl.objective.dense import dense_contrastive_loss
from zerovl.objective.targets import Targets
from zerovl.objective.tiled import contrastive_loss

CPU = torch.device("cpu")
OURS, OPEN_CLIP, DENSE = "tiled", "open_clip ClipLoss", "dense"
Finder = Callable[[], Loss]  # raises `NotMeasured` where there is no such loss on this machine
Embeddings = tuple[Tensor, Tensor, Tensor]  # images (B, D), texts (B, D), temperature


def tiled(image_emb: Tensor, text_emb: Tensor, temperature: Tensor) -> Tensor:
    return contrastive_loss(image_emb, text_emb, temperature, Targets())


def dense(image_emb: Tensor, text_emb: Tensor, temperature: Tensor) -> Tensor:
    return dense_contrastive_loss(image_emb, text_emb, temperature, Targets())


def unshifted(image_emb: Tensor, text_emb: Tensor, temperature: Tensor) -> Tensor:
    """The loss as it stands on paper; its exponentials overflow float32 from a logit of 89 on."""
    logits = image_emb @ text_emb.T / temperature  # (B, B)
    both = logits.exp().sum(dim=1).log() + logits.exp().sum(dim=0).log()  # (B,)
    return (0.5 * both - logits.diagonal()).mean()


FINDERS: dict[str, Finder] = {OPEN_CLIP: open_clip_loss, OURS: lambda: tiled, DENSE: lambda: dense}


def embeddings(
    pairs: int, width: int, temperature: float, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> Embeddings:
    """Normalised embeddings as an early model gives them: all alike (cosine 0.5), own partners a little more."""
    generator = torch.Generator().manual_seed(0)
    common = normalize(torch.randn(1, width, generator=generator))
    own, noise = (normalize(torch.randn(pairs, width, generator=generator)) for _ in range(2))
    image, text = normalize(common + own), normalize(common + 0.2 * own + noise)
    return image.to(device, dtype), text.to(device, dtype), torch.tensor(temperature, device=device)


def run_loss(loss: Loss, inputs: Embeddings) -> tuple[Tensor, list[Tensor]]:
    """Forward and backward: the value, and the gradients of images, texts and, where it has one, temperature."""
    leaves = [part.detach().requires_grad_() for part in inputs]
    value = loss(*leaves)
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]


def errors(loss: Loss, inputs: Embeddings) -> Record:
    """Relative errors of value and image gradient against the dense loss on the same values in float64.

    Null where the result is not finite.
    """
    value, (gradient, *_) = run_loss(loss, inputs)
    image_emb, text_emb, temperature = inputs
    exact, (exact_gradient, *_) = run_loss(dense, (image_emb.double(), text_emb.double(), temperature.double()))
    value_error = float((value.double() - exact).abs() / exact.abs())
    gradient_error = float((gradient.double() - exact_gradient).norm() / exact_gradient.norm())
    return {"value_error": _finite(value_error), "gradient_error": _finite(gradient_error)}


def available(results: Results, section: str, pairs: int, finders: Mapping[str, Finder]) -> dict[str, Loss]:
    """Those that this machine has; the reasons of the others are recorded."""
    found, missing = find_all(finders)
    for name, record in missing.items():
        results.add(section, f"{name}, {pairs}", {"pairs": pairs, "loss": name, **record})
    return found


def _finite(error: float) -> float | None:
    return rounded(error) if error < float("inf") else None
