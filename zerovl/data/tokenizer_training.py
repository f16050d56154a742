"""A WordPiece tokenizer learned from the training captions, the same files for the same captions."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tqdm import tqdm

from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write, write_json
from zerovl.parquet_files import open_parquet

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
_MAX_LENGTH = 512  # what BERT's position table takes
_CHUNK = 1000  # captions a call of the trainer


def learn(manifest: Manifest, folder: Path, vocab_size: int) -> int:
    """Learn a tokenizer from the training captions into `folder`, if `vocab_size` is positive.

    Returns the number of tokens, 0 where the text tower's own tokenizer is used, or where no input of the train splits
    is usable: why is in the manifest, and the validation refuses it. Raises `ZeroVLError` where no source has a train
    split.
    """
    if not vocab_size:
        return 0
    if not manifest.sources("train"):
        if any(split == "train" for _, split in manifest.splits):
            return 0
        raise ZeroVLError(
            f"prepare.tokenizer_vocab is {vocab_size}, but no source has training captions to learn from; "
            "set it to 0 or add a source with a train split"
        )
    tokenizer = train(lambda: training_captions(manifest), vocab_size)
    save(tokenizer, folder)
    return tokenizer.get_vocab_size()


def training_captions(manifest: Manifest) -> Iterator[str]:
    """Give all captions of the usable training samples, in the manifest's order, a batch of rows in memory."""
    for source in manifest.sources("train"):
        with open_parquet(manifest.table_path(source, "train")) as file:
            for batch in file.iter_batches(columns=["captions", "error"]):
                for captions, error in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    if error is None:
                        yield from captions


def train(captions: Callable[[], Iterable[str]], vocab_size: int) -> Tokenizer:
    """Learn at most `vocab_size` tokens; `captions` is called twice, each time for a fresh pass.

    The library's own training numbers the `##` letters by the order of a hash map, which differs
    from run to run, and with them how ties between merges fall. So the letters are counted here
    first and handed over in a fixed order.

    Raises:
        ZeroVLError: the letters alone need more tokens.
    """
    letters = _letters(captions(), vocab_size)
    inner = [f"##{letter}" for letter in letters if _inside_words(letter)]
    lowest = len(SPECIAL_TOKENS) + len(letters) + len(inner)
    if vocab_size < lowest:
        raise ZeroVLError(
            f"prepare.tokenizer_vocab is {vocab_size}, the captions' letters alone need {lowest}; raise it to that"
        )
    draft = _bare(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *inner],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    draft.train_from_iterator(_chunks(tqdm(captions(), desc="tokenizer", unit=" captions", delay=2)), trainer)
    tokenizer = _bare(models.WordPiece(draft.get_vocab(with_added_tokens=True), unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the three files that `transformers.AutoTokenizer.from_pretrained(folder)` reads."""
    numbers = tokenizer.get_vocab()
    by_id = sorted(numbers, key=numbers.__getitem__)
    with atomic_write(folder / "vocab.txt", "w") as file:
        file.writelines(f"{token}\n" for token in by_id)
    with atomic_write(folder / "tokenizer.json", "w") as file:
        file.write(tokenizer.to_str(pretty=True) + "\n")
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "model_max_length": _MAX_LENGTH,
            **dict(zip(names, SPECIAL_TOKENS, strict=True)),
        },
    )


def _bare(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _letters(captions: Iterable[str], vocab_size: int) -> list[str]:
    """The commonest characters after normalisation, at most a third of the vocabulary, sorted."""
    raw: Counter[str] = Counter()
    for caption in captions:
        raw.update(caption)
    normalizer = normalizers.BertNormalizer(lowercase=True)
    counts: Counter[str] = Counter()
    for character, count in raw.items():
        for letter in normalizer.normalize_str(character):
            if not letter.isspace():
                counts[letter] += count
    commonest = sorted(counts, key=lambda letter: (-counts[letter], letter))
    return sorted(commonest[: max(vocab_size // 3, 1)])


def _inside_words(letter: str) -> bool:
    """Whether a word can go on with it: punctuation and Chinese characters stand alone."""
    text = normalizers.BertNormalizer(lowercase=True).normalize_str(f"a{letter}a")
    alone = len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)) > 1
    return not alone and unicodedata.category(letter) != "Mn"


def _chunks(captions: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for caption in captions:
        chunk.append(caption)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
