"""Small folders as transformers writes them for CLIP and SigLIP: weights, tokenizer, preprocessing."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipImageProcessor, SiglipModel

from tests.support import text_towers
from zerovl.files import write_json

VISION = {"intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}


def make_clip(folder: Path) -> Path:
    """A `CLIPModel`: the shorter side resized, bicubic."""
    folder.mkdir()
    text_towers.clip_bpe(folder)
    end = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|endoftext|>")
    ids = {"eos_token_id": end, "pad_token_id": end, "bos_token_id": end - 1}
    text = {**text_towers.SIZES, **ids, "max_position_embeddings": 12, "vocab_size": text_towers.VOCABULARY}
    config = CLIPConfig(text_config=text, vision_config={**VISION, "hidden_size": 32}, projection_dim=8)
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(CLIPModel, config, folder)


def make_siglip(folder: Path) -> Path:
    """A `SiglipModel`: both sides resized, bicubic."""
    folder.mkdir()
    text_towers.siglip_piece(folder)
    text = {**text_towers.FAMILIES["siglip_text_model"][1], "vocab_size": text_towers.VOCABULARY}
    config = SiglipConfig(text_config=text, vision_config={**VISION, "hidden_size": 16})
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(SiglipModel, config, folder)


def _save(kind: Any, config: Any, folder: Path) -> Path:
    """The same weights each time: of some draws SigLIP's bias is large before its projection, where rounding shows.

    Those that start as zeros or ones would hide where they went.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = kind(config)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        model.logit_scale.fill_(3.0)
    model.save_pretrained(folder)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", {**tokenizer, "tokenizer_class": "PreTrainedTokenizerFast"})
    return folder
