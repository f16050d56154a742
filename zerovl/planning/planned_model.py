"""The architecture that training would build, found without weights and, where need be, without data."""

from __future__ import annotations

from transformers import BertConfig

from zerovl.engine.frozen_features import training_image_size
from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.model.architecture import Architecture
from zerovl.model.checks import check_image_sizes
from zerovl.model.text import CaptionTokenizer
from zerovl.model.text_towers import resolve_text_config
from zerovl.model.towers import make_architecture
from zerovl.objective.loss import LOSSES, start_bias
from zerovl.params import Params
from zerovl.training.inputs import NO_TOKENIZER
from zerovl.training.start import find_parent, find_start
from zerovl.workspace import Workspace

# Fields of a config from which a text tower's size follows; BertConfig's defaults are those of this model.
_KNOWN = "bert-base-uncased"


def planned_architecture(params: Params, workspace: Workspace) -> tuple[Architecture, list[str]]:
    """And what had to be assumed.

    Raises `ZeroVLError` for a text tower whose size is not known here, and for pictures of a size that does not fit.
    """
    name = params.model.text_tower.name
    vocabulary, notes = _vocabulary(params, workspace)
    try:
        config = resolve_text_config(params.model, vocabulary)
    except ZeroVLError as error:
        if name not in (_KNOWN, f"google-bert/{_KNOWN}"):
            raise ZeroVLError(f"{error}; a plan needs only its config.json: name a folder that holds it") from None
        config = BertConfig()
        notes.append(f"{name} is not on this machine: 12 layers of width 768 and 30,522 tokens are assumed")
    architecture = make_architecture(params.model, config, start_bias(LOSSES[params.train.loss]))
    check_image_sizes(architecture, params.model.image_size, training_image_size(params))
    return architecture, notes


def _vocabulary(params: Params, workspace: Workspace) -> tuple[int, list[str]]:
    """Tokens of the tokenizer that was trained, else of the one that would be."""
    start = find_start(params, workspace) or find_parent(params, workspace)
    if start and start.tokenizer:
        return CaptionTokenizer(start.tokenizer, params.model.max_tokens).vocab_size, []
    asked = params.prepare.tokenizer_vocab
    source = workspace.tokenizer_source
    if source.is_file() and read_json(source)["trained"]:
        return CaptionTokenizer(workspace.tokenizer, params.model.max_tokens).vocab_size, []
    if params.model.text_tower.name:
        return 0, []  # its config says
    if not asked:
        raise ZeroVLError(NO_TOKENIZER)
    return asked, [f"no tokenizer is trained yet: {asked} tokens are assumed, as prepare.tokenizer_vocab has it"]
