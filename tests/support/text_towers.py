"""Small published text towers of each family as people have them: config, safetensors and their kind of tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, CLIPTextModel, PreTrainedConfig, SiglipTextModel

from zerovl.params import ModelParams

CAPTIONS = ["a red circle", "two blue stars on the left", "a small green square with stripes", "a dog"]
TOKENS, VOCABULARY = 12, 120
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def word_piece(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CAPTIONS, trainers.WordPieceTrainer(vocab_size=80, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))


def byte_bpe(folder: Path) -> None:
    """RoBERTa's and MPNet's names, with the mask behind all words."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(CAPTIONS, trainers.BpeTrainer(vocab_size=80, special_tokens=special))
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    mask = {"content": "<mask>", "lstrip": True}
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": mask, "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))


def sentence_piece(folder: Path) -> None:
    """XLM-R's: Unigram over pieces with a mark for the space."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    pair = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=pair)
    tokenizer.save(str(folder / "tokenizer.json"))


def clip_bpe(folder: Path) -> None:
    """No mask, no padding of its own: rows are filled with the end of text."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(CAPTIONS, trainers.BpeTrainer(vocab_size=80, end_of_word_suffix="</w>"))
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    pair = [(name, tokenizer.token_to_id(name)) for name in ("<|startoftext|>", "<|endoftext|>")]
    single = "<|startoftext|> $A <|endoftext|>"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=pair)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "unk_token": "<|endoftext|>"}))


def siglip_piece(folder: Path) -> None:
    """Ends with </s>, which fills the row too; nothing at the beginning."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=["<unk>", "</s>"], unk_token="<unk>")
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


Train = Callable[[Path], None]
FAMILIES: dict[str, tuple[Train, dict[str, Any]]] = {
    "bert": (word_piece, {**SIZES, **QUIET, "max_position_embeddings": 12}),
    "distilbert": (
        word_piece,
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 12, "dropout": 0.0},
    ),
    "mpnet": (byte_bpe, {**SIZES, **QUIET, "max_position_embeddings": 14, "pad_token_id": 1}),
    "roberta": (byte_bpe, {**SIZES, **QUIET, "max_position_embeddings": 14, "pad_token_id": 1}),
    "camembert": (sentence_piece, {**SIZES, **QUIET, "max_position_embeddings": 14, "pad_token_id": 1}),
    "xlm-roberta": (sentence_piece, {**SIZES, **QUIET, "max_position_embeddings": 14, "pad_token_id": 1}),
    "clip_text_model": (clip_bpe, {**SIZES, "max_position_embeddings": 12}),
    "siglip_text_model": (
        siglip_piece,
        {**SIZES, "max_position_embeddings": 16, "pad_token_id": 1, "projection_size": 16},
    ),
}
SPECIAL_IDS = {"bos_token_id": 0, "eos_token_id": 1}


def config_of(family: str) -> PreTrainedConfig:
    return AutoConfig.for_model(family, vocab_size=VOCABULARY, **{**SPECIAL_IDS, **FAMILIES[family][1]})


def make_folder(family: str, folder: Path) -> Path:
    """A published tower as people have it: config, safetensors, tokenizer."""
    folder.mkdir()
    torch.manual_seed(2)
    own = {"clip_text_model": CLIPTextModel, "siglip_text_model": SiglipTextModel}
    config = config_of(family)
    tower = own[family](config) if family in own else AutoModel.from_config(config)
    tower.save_pretrained(folder)
    FAMILIES[family][0](folder)
    return folder


def settings(folder: Path, **changes: Any) -> ModelParams:
    options = {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}
    values = {
        "image_tower": {"name": "vit_tiny_patch16_224", "options": options},
        "text_tower": {"name": str(folder), "pretrained": True, "config": {}},
        "embed_dim": 8,
        "image_size": 32,
        "resize_size": 32,
        "max_tokens": TOKENS,
    }
    return ModelParams.model_validate(values | changes)
