"""open_clip's own towers, OpenAI's CLIP: the same embeddings with the real tokenizer, and clear words for others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from tests.support.exchange import check_trains_on
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.interop.base import largest_difference, synthetic_sample
from zerovl.interop.import_folder import import_folder
from zerovl.interop.open_clip_import import _embed
from zerovl.model.encoder import Encoder

open_clip: Any = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

SAMPLE = synthetic_sample()
VISION = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
PREPROCESS = {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.3, 0.3, 0.3], "interpolation": "bicubic"}


def make_folder(folder: Path, **settings: Any) -> Path:
    """A folder as people save one, with the tokenizer that open_clip has built in."""
    config = {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT, **settings}
    folder.mkdir()
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": PREPROCESS})
    torch.manual_seed(8)
    model = open_clip.create_model(f"local-dir:{folder}")
    with torch.no_grad():  # weights that start as zeros would hide their place
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    built_in = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in built_in.encoder.items()}
    CLIPTokenizer(vocab=vocabulary, merges=list(built_in.bpe_ranks)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("settings", [{"quick_gelu": True}, {"custom_text": True}], ids=["openai", "custom-text"])
def test_the_embeddings_are_those_of_open_clip(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "theirs", **settings)
    import_folder(folder, tmp_path / "ours")
    encoder = Encoder.load(tmp_path / "ours", "cpu")
    images, texts = _embed(folder, SAMPLE)
    assert largest_difference(encoder.encode_image(SAMPLE.pictures), images) < 1e-5
    assert largest_difference(encoder.encode_text(SAMPLE.captions), texts) < 1e-5
    assert encoder.transform.resize_mode == "shortest-rounded"
    check_trains_on(tmp_path / "ours")


@pytest.mark.parametrize(
    ("section", "change", "reason"),
    [
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, "a ResNet, which is not read"),
        (
            "vision_cfg",
            {"attentional_pool": True},
            "attentional_pool is True, which the towers of OpenAI's CLIP do not",
        ),
        ("text_cfg", {"pool_type": "last"}, "pool_type is 'last'"),
    ],
)
def test_other_towers_are_named(section: str, change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "theirs")
    config = read_json(folder / "open_clip_config.json")
    config["model_cfg"][section] |= change
    write_json(folder / "open_clip_config.json", config)
    with pytest.raises(ZeroVLError, match=reason):
        import_folder(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
