"""Small folders as people save them from open_clip: its own towers, its ResNet, and SigLIP."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from tests.support import text_towers
from zerovl.files import read_json, write_json

open_clip: Any = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

_VISION = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
_RESNET = {"image_size": 64, "patch_size": None, "width": 64, "layers": [3, 4, 6, 3]}
_TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
_PREPROCESS = {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.3, 0.3, 0.3], "interpolation": "bicubic"}
_SIGLIP_TOWER = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8, "mlp_ratio": 2.75}
_SIGLIP_TEXT = {
    "context_length": 16,
    "vocab_size": text_towers.VOCABULARY,
    "hf_tokenizer_name": "someone/siglip",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "width": 16,
    "heads": 2,
    "layers": 2,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}


def make_native(folder: Path, **settings: Any) -> Path:
    """OpenAI's CLIP, with the tokenizer that open_clip has built in."""
    _configure(folder, {"embed_dim": 8, "vision_cfg": _VISION, "text_cfg": _TEXT, **settings})
    _save(_moved(open_clip.create_model(f"local-dir:{folder}")), folder)
    _save_built_in_tokenizer(folder)
    return folder


def make_resnet(folder: Path) -> Path:
    """The same with RN50, whose BatchNorm has statistics of its own."""
    _configure(folder, {"embed_dim": 8, "vision_cfg": _RESNET, "text_cfg": _TEXT})
    model = _moved(open_clip.create_model(f"local-dir:{folder}")).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # statistics become those of the pictures
    with torch.no_grad():
        model.encode_image(torch.randn(4, 3, 64, 64))
    _save(model, folder)
    _save_built_in_tokenizer(folder)
    return folder


def make_siglip(folder: Path, **text: Any) -> Path:
    """SigLIP, whose tokenizer cleans captions first; `text` changes `text_cfg`, None takes a key out."""
    texts = {key: value for key, value in {**_SIGLIP_TEXT, **text}.items() if value is not None}
    vision = {"image_size": 32, "timm_model_name": "local-dir:image_tower", "timm_pool": "map", "timm_proj": "none"}
    config = {"embed_dim": 16, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": texts}
    _configure(folder, config, resize_mode="squash")
    tower = {"architecture": "vit_base_patch16_siglip_224", "num_classes": 0, "num_features": 16}
    (folder / "image_tower").mkdir()
    write_json(
        folder / "image_tower" / "config.json",
        {**tower, "pretrained_cfg": {"input_size": [3, 32, 32]}, "model_args": _SIGLIP_TOWER},
    )
    text_towers.siglip_piece(folder)
    names = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {**names, "tokenizer_class": "PreTrainedTokenizerFast"})
    place = {**vision, "timm_model_name": f"local-dir:{folder / 'image_tower'}", "timm_model_pretrained": False}
    _save(_moved(open_clip.create_model(f"local-dir:{folder}", vision_cfg=place)), folder)
    return folder


def _configure(folder: Path, model: dict[str, Any], **preprocess: Any) -> None:
    torch.manual_seed(8)
    folder.mkdir()
    size = model["vision_cfg"]["image_size"]
    values = {"model_cfg": model, "preprocess_cfg": {**_PREPROCESS, "size": size, **preprocess}}
    write_json(folder / "open_clip_config.json", values)


def _moved(model: Any) -> Any:
    """Weights that start as zeros would hide their place."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    return model


def _save(model: Any, folder: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")


def _save_built_in_tokenizer(folder: Path) -> None:
    built_in = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in built_in.encoder.items()}
    CLIPTokenizer(vocab=vocabulary, merges=list(built_in.bpe_ranks)).save_pretrained(folder)
