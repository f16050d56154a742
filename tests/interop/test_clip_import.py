"""CLIP and SigLIP of transformers, from small configs: the same embeddings, and a model like any other from then on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

from tests.support.clip_folders import make_clip, make_siglip
from tests.support.exchange import check_trains_on
from zerovl import log
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.interop.base import largest_difference, synthetic_sample
from zerovl.interop.export import export
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.import_folder import import_folder
from zerovl.model.encoder import Encoder

SAMPLE = synthetic_sample()
MAKE: dict[str, Callable[[Path], Path]] = {"clip": make_clip, "siglip": make_siglip}
FAMILIES: dict[str, Any] = {"clip": (CLIPModel, CLIPProcessor), "siglip": (SiglipModel, SiglipProcessor)}


def by_transformers(folder: Path, family: str, image_processor: Any = None) -> tuple[Tensor, Tensor]:
    """The sample's embeddings as transformers' documentation has it, with the model's processor or a given one."""
    model_class, processor_class = FAMILIES[family]
    pictures = image_processor or AutoImageProcessor.from_pretrained(folder, backend="pil")
    processor = processor_class(pictures, AutoTokenizer.from_pretrained(folder))
    model = model_class.from_pretrained(folder).eval()
    longest = model.config.text_config.max_position_embeddings
    inputs = processor(
        text=SAMPLE.captions,
        images=SAMPLE.pictures,
        padding="max_length",
        truncation=True,
        max_length=longest,
        return_tensors="pt",
    )
    of_text = ("input_ids", "attention_mask") if family == "clip" else ("input_ids",)
    with torch.inference_mode():
        images = model.get_image_features(inputs["pixel_values"]).pooler_output
        texts = model.get_text_features(**{name: inputs[name] for name in of_text}).pooler_output
    return torch.nn.functional.normalize(images, dim=1), torch.nn.functional.normalize(texts, dim=1)


def check_same(folder: Path, expected: tuple[Tensor, Tensor]) -> Encoder:
    """Import a folder, and compare; returns what it became."""
    import_folder(folder, folder.with_name("ours"))
    encoder = Encoder.load(folder.with_name("ours"), "cpu")
    images, texts = expected
    assert largest_difference(encoder.encode_image(SAMPLE.pictures), images) < 1e-5
    assert largest_difference(encoder.encode_text(SAMPLE.captions), texts) < 1e-5
    assert largest_difference(encoder.encode_text(["dog"]), texts[2:3]) < 1e-5  # alone, without padding to others
    assert float(images.std(0).max()) > 0.01  # pictures differ
    assert float(texts.std(0).max()) > 0.01
    return encoder


def changed(file: Path, **changes: Any) -> None:
    """Change some values of a JSON file."""
    write_json(file, {**read_json(file), **changes})


@pytest.mark.parametrize(("family", "mode"), [("clip", "shortest"), ("siglip", "squash")])
def test_the_embeddings_are_those_of_transformers(family: str, mode: str, tmp_path: Path) -> None:
    folder = MAKE[family](tmp_path / family)
    encoder = check_same(folder, by_transformers(folder, family))
    assert (encoder.transform.resize_mode, encoder.transform.interpolation) == (mode, "bicubic")
    assert encoder.model.temperature.item() == pytest.approx(0.0498, abs=1e-4)
    check_trains_on(tmp_path / "ours")
    if family == "clip":  # exported like any other
        export(encoder, CardFacts("tiny"), "hugging-face", SAMPLE, tmp_path / "again")


@pytest.mark.parametrize("name", ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"])
def test_every_resampling_of_pillow_is_read(name: str, tmp_path: Path) -> None:
    resample = Image.Resampling[name.upper()]
    folder = make_clip(tmp_path / "clip")
    changed(folder / "preprocessor_config.json", resample=int(resample))
    encoder = check_same(folder, by_transformers(folder, "clip"))
    assert encoder.transform.interpolation == name
    check_trains_on(tmp_path / "ours")


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_folder_that_says_nothing_of_pictures_has_the_library_s_defaults(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(log.logger(), "warning", said.append)
    folder = MAKE[family](tmp_path / family)
    (folder / "preprocessor_config.json").unlink()
    square = {"height": 32, "width": 32}
    processor = (
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square)
        if family == "clip"
        else SiglipImageProcessorPil(size=square)
    )
    encoder = check_same(folder, by_transformers(folder, family, processor))
    assert encoder.model.architecture.mean == tuple(processor.image_mean)
    assert (
        f"{folder}: no preprocessor_config.json, so pictures are prepared as transformers does for {family}" in said[0]
    )


def test_values_that_a_processor_leaves_out_are_the_library_s(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    write_json(folder / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", **size})
    check_same(folder, by_transformers(folder, "clip"))


def test_the_file_of_a_whole_processor_is_read(tmp_path: Path) -> None:
    """As transformers 5 saves a processor: one file for both sides."""
    folder = make_clip(tmp_path / "clip")
    changed(folder / "preprocessor_config.json", resample=int(Image.Resampling.BOX))
    pictures = AutoImageProcessor.from_pretrained(folder, backend="pil")
    CLIPProcessor(pictures, AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    (folder / "preprocessor_config.json").unlink()
    assert (folder / "processor_config.json").is_file()
    encoder = check_same(folder, by_transformers(folder, "clip"))
    assert encoder.transform.interpolation == "box"


@pytest.mark.parametrize(("family", "epsilon"), [("clip", 1e-6), ("siglip", 1e-5)])
def test_the_epsilon_of_norms_is_that_of_the_config(family: str, epsilon: float, tmp_path: Path) -> None:
    """Of small values, where it matters: with the family's usual one embeddings would be others."""
    folder = MAKE[family](tmp_path / family)
    weights = load_file(folder / "model.safetensors")
    small = {name: 0.01 * its if name.startswith("vision_model.embeddings.") else its for name, its in weights.items()}
    save_file(small, folder / "model.safetensors", {"format": "pt"})
    config = read_json(folder / "config.json")
    for side in ("vision_config", "text_config"):
        config[side]["layer_norm_eps"] = epsilon
    usual, _ = by_transformers(folder, family)
    write_json(folder / "config.json", config)
    expected = by_transformers(folder, family)
    assert largest_difference(usual, expected[0]) > 1e-3
    check_same(folder, expected)
    check_trains_on(tmp_path / "ours")


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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"crop_size": {"height": 30, "width": 30}}, "does not make squares of 32"),
        ({"do_resize": False}, r"\(do_resize False, .* does not make squares of 32"),
        ({"do_center_crop": False}, "do_center_crop False, .* does not make squares of 32"),
        ({"resample": 77}, "resample 77, .* does not make squares of 32"),
        ({"image_processor_type": "NoSuchProcessor"}, "transformers makes no image processor of it"),
    ],
)
def test_a_processor_without_counterpart_is_named(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    changed(folder / "preprocessor_config.json", **changes)
    with pytest.raises(ZeroVLError, match=rf"preprocessor_config\.json: .*{reason}"):
        import_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_counterpart_or_is_not_whole_is_named(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    config = read_json(folder / "config.json")
    broken = {**config, "vision_config": {**config["vision_config"], "layer_norm_eps": 1e-3}}
    write_json(folder / "config.json", broken)
    with pytest.raises(
        ZeroVLError, match=r"layer_norm_eps of vision_config is 0\.001; timm's towers have 1e-05 or 1e-06"
    ):
        import_folder(folder, tmp_path / "out")
    write_json(folder / "config.json", config)
    (folder / "model.safetensors").rename(folder / "elsewhere")
    with pytest.raises(ZeroVLError, match="no readable weights"):
        import_folder(folder, tmp_path / "out")
    (folder / "elsewhere").rename(folder / "model.safetensors")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ZeroVLError, match=r"clip: no tokenizer\.json: there is neither that nor vocab\.txt, "):
        import_folder(folder, tmp_path / "out")
    (folder / "vocab.json").write_text("{}")
    with pytest.raises(ZeroVLError, match=r"clip: no tokenizer\.json: there is vocab\.json without merges\.txt"):
        import_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
