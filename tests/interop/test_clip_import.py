"""CLIP and SigLIP of transformers, from small configs: the same embeddings, and a model like any other from then on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipImageProcessor, SiglipModel

from tests.support import text_towers
from tests.support.exchange import check_trains_on
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.interop.base import largest_difference, synthetic_sample
from zerovl.interop.clip_import import _embed
from zerovl.interop.export import export
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.import_folder import import_folder
from zerovl.model.encoder import Encoder

SAMPLE = synthetic_sample()
VISION = {"intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}


def make_clip(folder: Path) -> Path:
    folder.mkdir()
    text_towers.clip_bpe(folder)
    end = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|endoftext|>")
    ids = {"eos_token_id": end, "pad_token_id": end, "bos_token_id": end - 1}
    text = {**text_towers.SIZES, **ids, "max_position_embeddings": 12, "vocab_size": text_towers.VOCABULARY}
    config = CLIPConfig(text_config=text, vision_config={**VISION, "hidden_size": 32}, projection_dim=8)
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return save(CLIPModel(config), folder)


def make_siglip(folder: Path) -> Path:
    folder.mkdir()
    text_towers.siglip_piece(folder)
    text = {**text_towers.FAMILIES["siglip_text_model"][1], "vocab_size": text_towers.VOCABULARY}
    config = SiglipConfig(text_config=text, vision_config={**VISION, "hidden_size": 16})
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return save(SiglipModel(config), folder)


def save(model: Any, folder: Path) -> Path:
    """Weights that start as zeros or ones would hide where they went."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        model.logit_scale.fill_(3.0)
    model.save_pretrained(folder)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", {**tokenizer, "tokenizer_class": "PreTrainedTokenizerFast"})
    return folder


@pytest.mark.parametrize(
    ("make", "family", "mode"), [(make_clip, "clip", "shortest"), (make_siglip, "siglip", "squash")]
)
def test_the_embeddings_are_those_of_transformers(make: Any, family: str, mode: str, tmp_path: Path) -> None:
    folder = make(tmp_path / family)
    import_folder(folder, tmp_path / "ours")
    encoder = Encoder.load(tmp_path / "ours", "cpu")
    images, texts = _embed(folder, family, SAMPLE)
    assert largest_difference(encoder.encode_image(SAMPLE.pictures), images) < 1e-5
    assert largest_difference(encoder.encode_text(SAMPLE.captions), texts) < 1e-5
    assert largest_difference(encoder.encode_text(["dog"]), texts[2:3]) < 1e-5  # alone, without padding to others
    assert float(images.std()) > 0.01  # they say something
    assert (encoder.transform.resize_mode, encoder.transform.interpolation) == (mode, "bicubic")
    assert encoder.model.temperature.item() == pytest.approx(0.0498, abs=1e-4)
    check_trains_on(tmp_path / "ours")
    if family == "clip":  # exported like any other
        export(encoder, CardFacts("tiny"), "hugging-face", SAMPLE, tmp_path / "again")


def test_what_has_no_counterpart_or_is_not_whole_is_named(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    config = read_json(folder / "config.json")
    broken = {**config, "vision_config": {**config["vision_config"], "layer_norm_eps": 1e-3}}
    write_json(folder / "config.json", broken)
    with pytest.raises(ZeroVLError, match=r"layer_norm_eps of vision_config is 0\.001; timm's tower has 1e-05"):
        import_folder(folder, tmp_path / "out")
    write_json(folder / "config.json", config)
    processor = read_json(folder / "preprocessor_config.json")
    write_json(folder / "preprocessor_config.json", {**processor, "crop_size": {"height": 30, "width": 30}})
    with pytest.raises(ZeroVLError, match="does not make squares of 32"):
        import_folder(folder, tmp_path / "out")
    (folder / "model.safetensors").unlink()
    write_json(folder / "preprocessor_config.json", processor)
    with pytest.raises(ZeroVLError, match="no readable weights"):
        import_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
