"""The padding mask in the form in which a text tower's attention takes it, made without a look at its values.

From a mask (m, L), transformers makes that of the attention itself, but asks first whether it hides anything at all.
On an accelerator the host then waits in each forward for whatever the device still has to do. A mask of four
dimensions is taken as it is (`_preprocess_mask_arguments` of its masking_utils.py, 5.0 to 5.23).

Shapes: m captions, L tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ALL_PLACES = (
    "bert",
    "camembert",
    "distilbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
)  # a token sees those before and behind it
_EARLIER_PLACES = ("clip_text_model",)


def for_attention(tower: Any, attention_mask: Tensor) -> Tensor:
    """Return the mask (m, 1, L, L) that transformers would make of `attention_mask` (m, L) where it hides something.

    True where a token may look, as `scaled_dot_product_attention` reads it; for towers with attention of their own the
    term added to its logits. Of families that are not known here, and towers not of transformers, the mask as it came.
    """
    config = getattr(tower, "config", None)
    if config is None:
        return attention_mask
    family, implementation = config.model_type, config._attn_implementation
    known = family in _ALL_PLACES or family in _EARLIER_PLACES
    if not known or getattr(config, "is_decoder", False) or implementation not in ("sdpa", "eager"):
        return attention_mask
    visible = visible_places(attention_mask, family in _EARLIER_PLACES)
    if implementation == "sdpa":
        return visible
    dtype = next(tower.parameters()).dtype
    return torch.where(visible, torch.zeros((), dtype=dtype, device=visible.device), torch.finfo(dtype).min)


def visible_places(attention_mask: Tensor, earlier: bool = False) -> Tensor:
    """Return where each token may look, by a mask (m, L): bool, (m, 1, L, L); `earlier`: at those before it alone."""
    m, length = attention_mask.shape
    visible = attention_mask.bool()[:, None, None, :].expand(m, 1, length, length)
    if earlier:
        visible = visible & torch.ones(length, length, dtype=torch.bool, device=attention_mask.device).tril()
    return visible
