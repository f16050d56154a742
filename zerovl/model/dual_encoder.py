"""The dual encoder: an image tower, a text tower, two projections, one temperature, and a bias where a loss has one.

Shapes: m pairs a call, D embedding width, L tokens, w width of a tower, H = W image side.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zerovl.model import attention_masks, pooling
from zerovl.model.architecture import Architecture
from zerovl.model.blocks import first_modules, layers

MIN_TEMPERATURE = 0.001
MAX_TEMPERATURE = 0.5


class DualEncoder(nn.Module):
    """CLIP-like model of arXiv 2112.09331: both towers end in a bias-free Linear and L2 normalisation.

    `encode_*` give normalised embeddings (m, D) in float32 (float64 where the model is float64);
    `*_features` give them before normalisation, which is where text mixup happens.
    """

    pixel_scale: Tensor  # (1, 3, 1, 1)
    pixel_shift: Tensor  # (1, 3, 1, 1)

    def __init__(self, architecture: Architecture, image_tower: nn.Module, text_tower: nn.Module) -> None:
        super().__init__()
        self.architecture = architecture
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.pool = pooling.by_name(architecture.pooling)  # (m, L, w) and (m, L) -> (m, w)
        self._still: list[nn.Module] = []  # parts of learning towers that stay in evaluation mode
        width = architecture.embed_dim
        self.image_projection = nn.Linear(image_width(image_tower), width, bias=False)
        self.text_projection = nn.Linear(text_width(architecture.text_config), width, bias=False)
        self.temperature = nn.Parameter(
            torch.tensor(architecture.temperature), requires_grad=architecture.learn_temperature
        )
        if architecture.logit_bias is not None:
            self.logit_bias = nn.Parameter(torch.tensor(architecture.logit_bias))
        colours = list(zip(architecture.mean, architecture.std, strict=True))
        scale, shift = [1 / (255 * std) for _, std in colours], [-mean / std for mean, std in colours]
        self.register_buffer("pixel_scale", torch.tensor(scale).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_shift", torch.tensor(shift).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 pixels (m, 3, H, W) into the towers' input; doing it here keeps batches small on the way.

        That is (pixels / 255 - mean) / std, to rounding, read and written once.
        """
        return torch.addcmul(self.pixel_shift, images, self.pixel_scale)

    def image_features(self, pixels: Tensor) -> Tensor:
        """Turn normalised pixels (m, 3, H, W) into projected features (m, D)."""
        features: Tensor = self.image_projection(self.image_tower(pixels))
        return features

    def text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Turn token ids and mask (m, L) into projected features (m, D)."""
        features: Tensor = self.text_projection(self.text_hidden(input_ids, attention_mask))
        return features

    def text_hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Turn token ids and mask (m, L) into what the text tower makes of each caption, pooled over tokens, (m, w)."""
        # Reading a mask of the host's memory costs nothing, and one that hides nothing then needs no attention mask.
        mask = (
            attention_mask if attention_mask.is_cpu else attention_masks.for_attention(self.text_tower, attention_mask)
        )
        hidden = self.text_tower(input_ids=input_ids, attention_mask=mask).last_hidden_state  # (m, L, w)
        return self.pool(hidden, attention_mask)

    def encode_image(self, images: Tensor) -> Tensor:
        """Embed uint8 or normalised float pixels (m, 3, H, W); normalised, (m, D)."""
        pixels = self.normalise(images) if images.dtype == torch.uint8 else images
        return l2_normalise(self.image_features(pixels))

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed token ids with their mask (m, L); normalised, (m, D)."""
        return l2_normalise(self.text_features(input_ids, attention_mask))

    def freeze(self, side: Literal["image", "text"]) -> None:
        """Stop a tower from learning; its projection goes on. `train` leaves it in evaluation mode from now on."""
        tower: nn.Module = getattr(self, f"{side}_tower")
        tower.requires_grad_(False).eval()

    def freeze_blocks(self, side: Literal["image", "text"], count: int) -> None:
        """Stop a tower's stem and its first `count` blocks, 1 or more, from learning; as `freeze` for these alone."""
        tower: nn.Module = getattr(self, f"{side}_tower")
        of_layer = layers(tower)
        for name, parameter in tower.named_parameters():
            if of_layer[name] <= count:
                parameter.requires_grad_(False)
        self._still += first_modules(tower, count)
        self.train(self.training)

    def freeze_batch_norm(self) -> None:
        """Keep the image tower's BatchNorm at its running statistics from now on; its scales and shifts learn on."""
        self._still += [module for module in self.image_tower.modules() if isinstance(module, _BatchNorm)]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode as in PyTorch, but what is frozen stays in evaluation: no dropout, no statistics that move."""
        super().train(mode)
        for tower in (self.image_tower, self.text_tower):
            if is_frozen(tower):
                tower.eval()
        for module in self._still:
            module.training = False
        return self

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keep a learned temperature in [0.001, 0.5]; call it after each optimiser step."""
        self.temperature.clamp_(MIN_TEMPERATURE, MAX_TEMPERATURE)


def l2_normalise(features: Tensor) -> Tensor:
    """Return x / (|x| + 1e-8) along the last dimension, in float32 or better; (m, D) -> (m, D)."""
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    embeddings: Tensor = features / (features.norm(dim=-1, keepdim=True) + 1e-8)
    return embeddings


def is_frozen(tower: nn.Module) -> bool:
    """Return whether nothing in a tower learns."""
    return not any(parameter.requires_grad for parameter in tower.parameters())


def image_width(tower: Any) -> int:
    """Return the width of what a timm model without classifier gives."""
    return int(getattr(tower, "head_hidden_size", tower.num_features))


def text_width(config: dict[str, Any]) -> int:
    """Return the width w of a text tower's hidden states from its config, whatever its family calls it."""
    name = "dim" if config.get("model_type") == "distilbert" else "hidden_size"
    if name in config:
        return int(config[name])
    from zerovl.model.text_towers import text_config_from  # and transformers, which knows all families' names

    return int(text_config_from(config).hidden_size)
