"""Bundles: saved, loaded, damaged; and the encoder that users hold in hand."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import zerovl
from zerovl.data import tokenizer_training
from zerovl.errors import ZeroVLError
from zerovl.model import bundle
from zerovl.model.preprocess import EvaluationTransform
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import build
from zerovl.params_file import from_recipe

CAPTIONS = ["a red circle", "two blue stars on the left", "a small green square with stripes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundle")
    tokenizer_training.save(tokenizer_training.train(lambda: CAPTIONS, 60), root / "tokenizer")
    tokenizer = CaptionTokenizer(root / "tokenizer", 12)
    settings = from_recipe({}, ["model.max_tokens=12", "model.image_size=32", "model.resize_size=36"], "test").model
    bundle.save(build(settings, tokenizer.vocab_size, seed=0), tokenizer, root / "model")
    return root / "model"


def test_load_gives_what_was_saved_in_three_lines(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.jpg")
    Image.new("RGBA", (50, 40), "blue").save(tmp_path / "b.png")
    model = zerovl.load(str(folder))
    scores = model.encode_text(CAPTIONS) @ model.encode_image([tmp_path / "a.jpg", str(tmp_path / "b.png")]).T
    assert scores.shape == (3, 2)
    norms = model.encode_text(CAPTIONS).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(3), rtol=1e-5, atol=1e-5)
    again = zerovl.load(str(folder))
    assert torch.equal(again.encode_text(CAPTIONS), model.encode_text(CAPTIONS))


def test_padding_changes_no_embedding(folder: Path) -> None:
    model = zerovl.load(str(folder))
    together = model.encode_text(CAPTIONS)
    alone = torch.cat([model.encode_text([caption]) for caption in CAPTIONS])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_long_captions_are_cut(folder: Path) -> None:
    ids, mask = CaptionTokenizer(folder, 12)(["red " * 100, "red"])
    assert ids.shape == mask.shape == (2, 12)
    assert mask[0].all()
    assert 3 <= mask[1].sum() < 12


def test_untrained_differs_from_trained_and_follows_the_seed(folder: Path) -> None:
    from zerovl.model.encoder import Encoder

    embeddings = [Encoder.untrained(folder, seed).encode_text(CAPTIONS) for seed in (5, 5, 6)]
    assert torch.equal(embeddings[0], embeddings[1])
    assert not torch.equal(embeddings[0], embeddings[2])


def test_weights_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "model"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["extra"] = weights.pop("temperature")
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(ZeroVLError, match=r"2 problems:\n  missing temperature\n  left over extra"):
        zerovl.load(str(broken))
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ZeroVLError, match=r"model\.safetensors: damaged"):
        zerovl.load(str(broken))


def test_bad_pictures_and_arguments_are_named(folder: Path, tmp_path: Path) -> None:
    model = zerovl.load(str(folder))
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ZeroVLError, match=r"text\.jpg: not a picture"):
        model.encode_image([tmp_path / "text.jpg"])
    with pytest.raises(ZeroVLError, match=r"absent\.jpg: cannot be read"):
        model.encode_image([tmp_path / "absent.jpg"])
    with pytest.raises(ZeroVLError, match="write \\['a cat'\\]"):
        model.encode_text("a cat")


def test_evaluation_transform_squashes_and_crops_the_centre() -> None:
    image = Image.new("RGB", (100, 50), "black")
    image.paste("white", (40, 0, 60, 50))
    pixels = EvaluationTransform(image_size=20, resize_size=40)(image)
    assert pixels.shape == (3, 20, 20)
    assert pixels.dtype == torch.uint8
    columns = pixels.float().mean(dim=(0, 1))
    assert columns[10] == 255
    assert columns[0] == columns[-1] == 0
    assert int((columns > 127).sum()) == 8


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.image_tower.name=resnet_of_dreams", "timm has no model 'resnet_of_dreams'"),
        ("model.image_tower.options={wheels: 4}", "do not fit resnet18"),
        ("model.text_tower.config={hidden_sze: 4}", r"unknown keys \['hidden_sze'\]"),
        ("model.text_tower.config={hidden_size: 100}", "not a multiple"),
        ("model.max_tokens=70", "more than max_position_embeddings 64"),
    ],
)
def test_towers_that_cannot_be_built_say_why(override: str, words: str) -> None:
    with pytest.raises(ZeroVLError, match=words):
        build(from_recipe({}, [override], "test").model, vocab_size=50, seed=0)
