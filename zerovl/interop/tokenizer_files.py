"""A caption tokenizer as the files that `transformers.AutoTokenizer` reads, in any of its versions."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from zerovl.files import write_json
from zerovl.model.text import CaptionTokenizer

_ROLES = {"pad": "pad_token", "cls": "cls_token", "sep": "sep_token", "mask": "mask_token", "unk": "unk_token"}


def write(tokenizer: CaptionTokenizer, folder: Path) -> None:
    """Write `tokenizer.json`, and a config that names its special tokens and its longest row.

    The class is the one that takes `tokenizer.json` for what it is: a class of a family would put its own rules in.
    """
    tokenizer.save(folder)
    for name in ("vocab.txt", "special_tokens_map.json"):  # of the family
        (folder / name).unlink(missing_ok=True)
    names = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = {key: getattr(tokenizer.special, role) for role, key in _ROLES.items()}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": tokenizer.max_tokens,
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
            **{key: names.id_to_token(number) for key, number in ids.items() if number is not None},
        },
    )
