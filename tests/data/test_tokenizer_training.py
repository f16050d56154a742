"""The tokenizer: learned from usable training captions, the same in every process, read by transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.support import raw_sources
from zerovl.errors import ZeroVLError
from zerovl.files import read_json


def test_tokenizer_is_learned_from_usable_training_captions(tmp_path: Path) -> None:
    rows = [(f"{n}.jpg", n, f"Striped hearts und Bäume {n}", n) for n in range(9)]
    raw_sources.write_csv(tmp_path / "raw/a/train_anno.csv", [*rows, ("9.jpg", 9, "xylophone", 9)])
    raw_sources.write_csv(tmp_path / "raw/a/valid_anno.csv", [("9.jpg", 10, "zeppelin", 10)])
    for n in range(9):
        for split in ("train", "valid"):
            place = tmp_path / f"raw/a/{split}/{n}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(raw_sources.jpeg(n))
    raw_sources.run_prepare(tmp_path, tokenizer_vocab=80)
    folder = tmp_path / "data/tokenizer"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert [tokenizer.id_to_token(n) for n in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert read_json(folder / "source.json") == {"trained": True, "vocab_size": tokenizer.get_vocab_size()}
    assert tokenizer.get_vocab_size() <= 80
    assert tokenizer.encode("STRIPED hearts").tokens == ["[CLS]", "striped", "hearts", "[SEP]"]
    assert not {"x", "y", "z", "##x", "##z"} & set(tokenizer.get_vocab()), "learned from broken or valid captions"
    loaded = AutoTokenizer.from_pretrained(folder)
    texts = ["Striped hearts, Bäume 7", "[MASK] hearts", "", "unknown 中文 words"]
    assert loaded(texts)["input_ids"] == [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    assert (loaded.pad_token_id, loaded.mask_token_id, len(loaded)) == (0, 4, tokenizer.get_vocab_size())
    assert loaded.decode(loaded("striped hearts")["input_ids"], skip_special_tokens=True) == "striped hearts"
    assert (folder / "vocab.txt").read_text().splitlines()[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


_TRAIN_TWICE = """
import sys
from zerovl.data.tokenizer_training import train
words = [f"{a}{b}{a} {b}{c}" for a in "abcdefgh" for b in "stuvw" for c in "xyz"]
print(train(lambda: words, 90).to_str())
"""


def test_tokenizer_is_the_same_in_every_process() -> None:
    """Many ties on purpose: the library alone numbers tokens by a hash that changes from run to run."""
    made = {
        subprocess.run([sys.executable, "-c", _TRAIN_TWICE], capture_output=True, text=True, check=True).stdout
        for _ in range(4)
    }
    assert len(made) == 1


def test_no_tokenizer(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "valid", 2)
    raw_sources.run_prepare(tmp_path, tokenizer_vocab=0)
    assert raw_sources.all_bytes(tmp_path / "data/tokenizer").keys() == {"source.json"}
    assert read_json(tmp_path / "data/tokenizer/source.json") == {"trained": False, "vocab_size": 0}
    with pytest.raises(ZeroVLError, match=r"prepare\.tokenizer_vocab is 100, but no source has training captions"):
        raw_sources.run_prepare(tmp_path, tokenizer_vocab=100)
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2, first=5)
    with pytest.raises(ZeroVLError, match=r"prepare\.tokenizer_vocab is 7, the captions' letters alone need 9"):
        raw_sources.run_prepare(tmp_path, tokenizer_vocab=7)
