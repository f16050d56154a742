"""The other implementations that are measured, where they are installed and can run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.common import NotMeasured
from zerovl.engine.forward import Inputs
from zerovl.engine.precision import Precision
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.dense import dense_contrastive_loss
from zerovl.objective.mixup import Mix
from zerovl.objective.targets import Targets

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # image (B, D), text (B, D), temperature -> scalar


def peer(module: str, package: str) -> ModuleType:
    """Import a peer; raises `NotMeasured` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise NotMeasured(f"{package} is not installed") from None


def open_clip_loss() -> Loss:
    """open_clip's loss of one rank."""
    clip_loss = peer("open_clip.loss", "open_clip_torch").ClipLoss()

    def loss(image_emb: Tensor, text_emb: Tensor, temperature: Tensor) -> Tensor:
        value: Tensor = clip_loss(image_emb, text_emb, 1 / temperature)
        return value

    return loss


def inf_cl_loss(function: str, device: torch.device) -> Loss:
    """`cal_flash_loss` or `cal_inf_loss` in both directions, as its own loss module calls them; Triton with PTX."""
    if device.type != "cuda":
        raise NotMeasured("needs a GPU")
    one_way = getattr(peer("inf_cl", "inf-cl"), function)

    def loss(image_emb: Tensor, text_emb: Tensor, temperature: Tensor) -> Tensor:
        scale = 1 / temperature
        if function == "cal_inf_loss":
            scale = scale.detach()  # its gradient is an all-reduce, which one rank without a group has not
        there: Tensor = one_way(image_emb, text_emb, scale=scale).mean()
        back: Tensor = one_way(text_emb, image_emb, scale=scale).mean()
        return 0.5 * (there + back)

    return loss


@dataclass(frozen=True)
class OpenClipStep:
    """The step of open_clip's trainer on our towers, by its algorithm (open_clip_train/train.py of 3.3).

    One micro-batch is its plain step. For several (`accum_freq`), features are computed first without
    graph; then each micro-batch goes forward again, its features take the place of the cached ones,
    and the loss of the whole batch is computed and back-propagated again. As there, inputs stay on the
    device from the first pass to the second, the loss is under autocast, and dropout is not replayed.
    """

    model: DualEncoder
    loss: Loss
    precision: Precision

    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        placed = [_placed(inputs, self.precision.device) for inputs in batch]
        if len(placed) == 1:
            return self._backward(*self._features(placed[0]))
        with torch.no_grad():
            cached = [self._features(inputs) for inputs in placed]
        for index, inputs in enumerate(placed):
            own = self._features(inputs)
            whole = [*cached[:index], own, *cached[index + 1 :]]
            image_emb, text_emb = (torch.cat(parts) for parts in zip(*whole, strict=True))  # (B, D) each
            loss = self._backward(image_emb, text_emb)
        return loss

    def _features(self, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, input_ids, attention_mask = inputs
        with self.precision.autocast():
            return self.model.encode_image(images), self.model.encode_text(input_ids, attention_mask)

    def _backward(self, image_emb: Tensor, text_emb: Tensor) -> Tensor:
        with self.precision.autocast():
            loss = self.loss(image_emb, text_emb, self.model.temperature)
        self.precision.backward(loss)
        return loss.detach()


@dataclass(frozen=True)
class GradCacheStep:
    """GradCache (arXiv 2101.06983), by its algorithm: two passes, with stored random states and a dense loss.

    Its package takes no uint8 input and no learned temperature, so this is the algorithm and not the package;
    with the random state of the CPU alone.
    """

    model: DualEncoder
    precision: Precision

    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        states, pairs = [], []
        with torch.no_grad():
            for inputs in batch:
                states.append(torch.get_rng_state())
                pairs.append(self._features(inputs))
        image_emb, text_emb = (torch.cat(parts).requires_grad_() for parts in zip(*pairs, strict=True))  # (B, D) each
        loss = dense_contrastive_loss(image_emb, text_emb, self.model.temperature, Targets())
        self.precision.backward(loss)
        assert image_emb.grad is not None
        assert text_emb.grad is not None
        sizes = [len(image) for image, _ in pairs]
        gradients = zip(image_emb.grad.split(sizes), text_emb.grad.split(sizes), strict=True)
        for inputs, state, upstream in zip(batch, states, gradients, strict=True):
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(state)
                surrogate = sum((own * grad).sum() for own, grad in zip(self._features(inputs), upstream, strict=True))
            assert isinstance(surrogate, Tensor)
            surrogate.backward()
        return loss.detach()

    def _features(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        images, input_ids, attention_mask = _placed(inputs, self.precision.device)
        with self.precision.autocast():
            return self.model.encode_image(images), self.model.encode_text(input_ids, attention_mask)


def _placed(inputs: Inputs, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    images, input_ids, attention_mask = (
        part.to(device, non_blocking=True) for part in (inputs.images, inputs.input_ids, inputs.attention_mask)
    )
    return images, input_ids, attention_mask
