"""How the last hidden state of a text tower becomes one vector a caption.

Shapes: m captions, L tokens, w width of the tower. Rows are padded on the right; the mask has a 1 for each token.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.params import TextTowerParams

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Pool = Callable[[Tensor, Tensor], Tensor]


def first(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return what the tower makes of token 0, BERT's [CLS]; (m, L, w) and (m, L) -> (m, w)."""
    return hidden[:, 0]


def mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean over the tokens of the mask, in float32 or better; (m, L, w) and (m, L) -> (m, w)."""
    if hidden.dtype in (torch.float16, torch.bfloat16):
        hidden = hidden.float()
    weights = attention_mask.to(hidden.dtype).unsqueeze(-1)  # (m, L, 1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def last(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return what the tower makes of the last token of the mask; (m, L, w) and (m, L) -> (m, w)."""
    places = torch.arange(hidden.shape[1], device=hidden.device)  # (L,)
    index = (places * attention_mask).argmax(1).view(-1, 1, 1).expand(-1, 1, hidden.shape[2])  # (m, 1, w)
    return hidden.gather(1, index)[:, 0]


def end(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return what the tower makes of the last place, be it padding; (m, P, w) -> (m, w)."""
    return hidden[:, -1]


POOLS: dict[str, Pool] = {"first": first, "mean": mean, "last": last, "end": end}
_CHOICES = ("first", "mean", "last")  # of params.yaml


def by_name(name: str) -> Pool:
    """Return a pooling by the name that an architecture has; raises `ZeroVLError` for one that is not here."""
    if name not in POOLS:
        raise ZeroVLError(f"pooling {name!r} of the text tower is not known; expected one of {', '.join(POOLS)}")
    return POOLS[name]


# Families whose published weights were trained for another place than token 0: CLIP reads the end-of-text token, which
# the tokenizer puts last.
_FAMILIES = {"clip_text_model": "last"}
_FIXED_LENGTH = "siglip_text_model"  # reads the last place of a row in which padding counts
# Ways of sentence-transformers, by the keys of its `1_Pooling/config.json` (its modules/pooling.py).
_SENTENCE_MODES = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}


def resolve(tower: TextTowerParams, config: PreTrainedConfig) -> str:
    """Return the name of the pooling that `model.text_tower` asks for; `auto` is what its weights were trained for.

    A tower from scratch has learned no place yet, and `auto` is the mean: each word reaches the loss from the first
    step on, where token 0 of an untrained tower holds next to nothing of them.

    Raises `ZeroVLError` where a folder of sentence-transformers asks for a way that is not here, or the tower cannot
    do what is asked.
    """
    if config.model_type == _FIXED_LENGTH:
        if tower.pooling not in ("auto", "last"):
            raise ZeroVLError(
                f"model.text_tower.pooling: {tower.pooling} does not fit SigLIP's text tower, which reads the last "
                "place of a row of fixed length; set it to auto"
            )
        return "end"
    if tower.pooling != "auto":
        return tower.pooling
    if not tower.name:
        return "mean"
    if modules := _published_file(tower.name, "modules.json"):
        return _of_sentence_model(tower.name, modules)
    return _FAMILIES.get(config.model_type, "first")


def _of_sentence_model(name: str, modules: Path) -> str:
    """The pooling that the list of modules of a sentence-transformers model leads to."""
    listed = read_json(modules)
    pooling = next((module for module in listed if str(module["type"]).rpartition(".")[2] == "Pooling"), None)
    path = _published_file(name, f"{pooling['path']}/config.json") if pooling else None
    if path is None:
        raise _unknown(str(modules), "no Pooling with a config.json among the modules")
    asked = _asked_modes(read_json(path))
    if len(asked) != 1 or asked[0] not in _SENTENCE_MODES:
        raise _unknown(str(path), f"{' and '.join(asked) or 'no way'} asked for")
    return _SENTENCE_MODES[asked[0]]


def _asked_modes(values: dict[str, Any]) -> list[str]:
    return sorted(key for key, value in values.items() if key.startswith("pooling_mode_") and value)


def _unknown(path: str, problem: str) -> ZeroVLError:
    return ZeroVLError(
        f"{path}: {problem}; set model.text_tower.pooling to one of {', '.join(_CHOICES)} instead of auto"
    )


def _published_file(name: str, file: str) -> Path | None:
    """A file of a text tower, in its folder or in the local cache of Hugging Face; None where it is not there."""
    folder = Path(name)
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    found = try_to_load_from_cache(name, file)
    return Path(found) if isinstance(found, str) else None
