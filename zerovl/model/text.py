"""Turn captions into token ids."""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from zerovl.bundle_files import TOKENIZER, TOKENIZER_FILE
from zerovl.data.special_tokens import SpecialTokens
from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.model.architecture import Architecture
from zerovl.shared_folder import make_folder, open_files
from zerovl.whole_folder import whole_folder

Ids = npt.NDArray[np.int64]

# What a tokenizer is made of where there is no tokenizer.json, each with what it needs beside it.
_VOCABULARIES = {
    **dict.fromkeys(("vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"), ""),
    "vocab.json": "merges.txt",
}
# What a token is called in a tokenizer's own files, and the names that are looked for where they say nothing.
_ROLES = {
    "pad": (("pad_token",), ("[PAD]", "<pad>")),
    "cls": (("cls_token", "bos_token"), ("[CLS]", "<s>", "<|startoftext|>")),
    "sep": (("sep_token", "eos_token"), ("[SEP]", "</s>", "<|endoftext|>")),
    "mask": (("mask_token",), ("[MASK]", "<mask>")),
    "unk": (("unk_token",), ("[UNK]", "<unk>")),
}


class CaptionTokenizer:
    """A Hugging Face tokenizer that cuts at `max_tokens` and pads to the longest caption of a call.

    Padding to the longest instead of a fixed length changes nothing in the embeddings (the mask
    hides it) and saves a good part of the text tower's time.
    """

    def __init__(self, folder: Path | str, max_tokens: int) -> None:
        self.folder = Path(folder)
        self.max_tokens = max_tokens
        self._tokenizer = _load(self.folder)
        self._tokenizer.enable_truncation(max_tokens)
        self.vocab_size = self._tokenizer.get_vocab_size()
        names = _special_names(self.folder, self._tokenizer)
        if names["pad"] is None:
            raise ZeroVLError(
                f"{self.folder}: the tokenizer has no token for padding; name one as pad_token in tokenizer_config.json"
            )
        number = {role: None if name is None else self._tokenizer.token_to_id(name) for role, name in names.items()}
        pad = number["pad"]
        assert pad is not None  # names are of tokens that there are
        self.special = SpecialTokens(
            pad, number["cls"], number["sep"], number["mask"], number["unk"], vocab_size=self.vocab_size
        )
        self._padding: dict[str, Any] = {"pad_id": pad, "pad_token": names["pad"]}
        self._tokenizer.enable_padding(**self._padding)

    @property
    def digest(self) -> str:
        """Return a digest of all that token ids depend on."""
        return sha256(self._tokenizer.to_str().encode()).hexdigest()

    def __call__(self, captions: list[str]) -> tuple[Ids, Ids]:
        """Return token ids and attention mask of captions, both (m, L), L at most `max_tokens`."""
        return _encode(self._tokenizer, captions)

    def whole(self, captions: list[str]) -> tuple[Ids, Ids]:
        """Return the same of captions that are not cut: (m, L), L of the longest."""
        return _encode(self._uncut, captions)

    @cached_property
    def _uncut(self) -> Tokenizer:
        tokenizer = _load(self.folder)
        tokenizer.enable_padding(**self._padding)
        return tokenizer

    def __reduce__(self) -> tuple[type[CaptionTokenizer], tuple[Path, int]]:
        return CaptionTokenizer, (self.folder, self.max_tokens)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and its Hugging Face companions."""
        make_folder(folder, folder)
        tokenizer = _load(self.folder)
        tokenizer.save(str(folder / TOKENIZER_FILE))
        for name in TOKENIZER[1:]:
            if (self.folder / name).is_file():
                (folder / name).write_bytes((self.folder / name).read_bytes())
        open_files(folder)

    def copy(self, folder: Path) -> None:
        """Copy the tokenizer's files as they are, so that their digests stay; a folder without appears at once."""
        if not (self.folder / TOKENIZER_FILE).is_file():
            self.save(folder)
            return
        with whole_folder(folder) as aside:
            for name in TOKENIZER:
                if (self.folder / name).is_file():
                    (aside / name).write_bytes((self.folder / name).read_bytes())


def load_tokenizer(folder: Path, architecture: Architecture) -> CaptionTokenizer:
    """Return the tokenizer of a bundle; raises `ZeroVLError` where it is not the text tower's."""
    tokenizer = CaptionTokenizer(folder, architecture.max_tokens)
    embedded = int(architecture.text_config["vocab_size"])
    if tokenizer.vocab_size > embedded:
        raise ZeroVLError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} tokens, its text tower {embedded}, so they do not "
            "belong together; fetch the model again"
        )
    return tokenizer


def _encode(tokenizer: Tokenizer, captions: list[str]) -> tuple[Ids, Ids]:
    encodings = tokenizer.encode_batch_fast(captions)  # without the places of tokens in the text, which nobody asks for
    input_ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
    attention_mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
    return input_ids, attention_mask


def _load(folder: Path) -> Tokenizer:
    """Load `tokenizer.json`, else a tokenizer through transformers from its vocabulary; it neither cuts nor pads."""
    try:
        if (folder / TOKENIZER_FILE).is_file():
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        else:
            _check_there(folder)
            from transformers import AutoTokenizer  # and most of transformers, which a `tokenizer.json` does without

            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    except ZeroVLError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        place = folder / TOKENIZER_FILE if (folder / TOKENIZER_FILE).is_file() else folder
        raise ZeroVLError(
            f"{place}: no usable tokenizer ({error}); get it again, or run `dvc repro prepare` where it is made here"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _check_there(folder: Path) -> None:
    """Raise `ZeroVLError` naming the file that a folder lacks: transformers may make a tokenizer without words of it.

    What is no folder may be a name in the local cache of Hugging Face.
    """
    if not folder.is_dir():
        return
    there = [name for name in _VOCABULARIES if (folder / name).is_file()]
    if any(not (beside := _VOCABULARIES[name]) or (folder / beside).is_file() for name in there):
        return
    lacks = f"{there[0]} without {_VOCABULARIES[there[0]]}" if there else f"neither that nor {', '.join(_VOCABULARIES)}"
    raise ZeroVLError(
        f"{folder}: no {TOKENIZER_FILE}: there is {lacks}, so captions cannot be turned into tokens; put the "
        f"{TOKENIZER_FILE} of the model there, from where its other files come"
    )


def _special_names(folder: Path, tokenizer: Tokenizer) -> dict[str, str | None]:
    """The token of each role: by the tokenizer's own config, else by a usual name; None where there is none."""
    said: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / file).is_file():
            values = read_json(folder / file)
            if not isinstance(values, dict):
                raise ZeroVLError(f"{folder / file}: holds {type(values).__name__}, expected a mapping; fetch it again")
            said |= values
    names: dict[str, str | None] = {}
    for role, (keys, usual) in _ROLES.items():
        asked = (said.get(key) for key in keys)
        candidates = [value.get("content") if isinstance(value, dict) else value for value in asked]
        present = (name for name in (*candidates, *usual) if name and tokenizer.token_to_id(name) is not None)
        names[role] = next(present, None)
    return names
