"""CLIP and SigLIP of transformers, from small configs: the same embeddings, and a model like any other from then on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor

from tests.support.clip_folders import make_clip, make_siglip
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


@pytest.mark.parametrize(
    "changes",
    [
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [64.0] * 3},
        {"image_mean": 0.5, "image_std": 0.25},
    ],
    ids=["not-normalised", "another-factor", "not-rescaled", "one-number"],
)
def test_pixels_become_the_numbers_that_transformers_makes_of_them(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    processor = read_json(folder / "preprocessor_config.json")
    write_json(folder / "preprocessor_config.json", {**processor, **changes})
    theirs = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    expected = theirs(images=SAMPLE.pictures, return_tensors="pt")["pixel_values"]
    import_folder(folder, tmp_path / "ours")
    encoder = Encoder.load(tmp_path / "ours", "cpu")
    mean, std = (torch.tensor(getattr(encoder.model.architecture, name)).view(3, 1, 1) for name in ("mean", "std"))
    found = (torch.stack([encoder.transform(picture) for picture in SAMPLE.pictures]) / 255 - mean) / std
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


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
