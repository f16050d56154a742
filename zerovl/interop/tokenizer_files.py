"""A caption tokenizer as the files that `transformers.AutoTokenizer` reads, in any of its versions."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.normalizers import Normalizer, Sequence

from zerovl.files import write_json
from zerovl.model.text import CaptionTokenizer

_ROLES = {"pad": "pad_token", "cls": "cls_token", "sep": "sep_token", "mask": "mask_token", "unk": "unk_token"}


def write(tokenizer: CaptionTokenizer, folder: Path, inputs: tuple[str, ...] = ("input_ids", "attention_mask")) -> None:
    """Write `tokenizer.json`, and a config that names its special tokens, its longest row and what it gives a model.

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
            "model_input_names": list(inputs),
            "clean_up_tokenization_spaces": False,
            **{key: names.id_to_token(number) for key, number in ids.items() if number is not None},
        },
    )


def clean_first(folder: Path, cleaning: tuple[Normalizer, ...]) -> None:
    """Put what is done to captions before all else into the `tokenizer.json` of a folder."""
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    own = () if tokenizer.normalizer is None else (tokenizer.normalizer,)
    tokenizer.normalizer = Sequence([*cleaning, *own])
    tokenizer.save(file)
