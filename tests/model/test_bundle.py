"""Bundles: saved, loaded, damaged; and the encoder that users hold in hand."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import zerovl
from zerovl.data import tokenizer_training
from zerovl.errors import ZeroVLError
from zerovl.interop import imported_bundle
from zerovl.model import bundle
from zerovl.model.encoder import Encoder
from zerovl.model.preprocess import EvaluationTransform
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import build
from zerovl.params_file import from_recipe
from zerovl.registry import release_files
from zerovl.shared_folder import is_shared

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
    assert again.digest == model.digest != Encoder.untrained(folder, 5).digest
    assert torch.equal(again.encode_text(CAPTIONS), model.encode_text(CAPTIONS))


@pytest.mark.parametrize(
    ("umask", "parent", "mode"), [(0o002, 0o755, 0o664), (0o022, 0o755, 0o644), (0o077, 0o2770, 0o660)]
)
def test_a_group_may_do_with_its_files_what_the_umask_or_their_folder_lets_it(
    folder: Path, tmp_path: Path, umask: int, parent: int, mode: int
) -> None:
    tmp_path.chmod(parent)
    model, tokenizer = bundle.load_model(folder), CaptionTokenizer(folder, 12)
    before = os.umask(umask)
    try:
        bundle.save(model, tokenizer, tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    assert len(modes) > 2
    assert set(modes.values()) == {mode}, modes
    assert is_shared(tmp_path / "model") == is_shared(tmp_path)


def test_what_is_made_aside_and_moved_into_a_folder_of_a_group_is_the_groups(folder: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    model, tokenizer = bundle.load_model(folder), CaptionTokenizer(folder, 12)
    before = os.umask(0o077)
    try:
        imported_bundle.write(model, tokenizer, tmp_path / "imported")
        tokenizer.copy(tmp_path / "copied")
    finally:
        os.umask(before)
    made = list(tmp_path.rglob("*"))
    assert {path.name for path in made} >= {"imported", "text_tower", "train.yaml", "model.safetensors", "copied"}
    for path in made:
        assert is_shared(path) if path.is_dir() else stat.S_IMODE(path.stat().st_mode) == 0o660, path


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
    embeddings = [Encoder.untrained(folder, seed).encode_text(CAPTIONS) for seed in (5, 5, 6)]
    assert torch.equal(embeddings[0], embeddings[1])
    assert not torch.equal(embeddings[0], embeddings[2])


def test_weights_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path / "model", digests=False)
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


def copied(folder: Path, to: Path, *, digests: bool) -> Path:
    """A copy to damage; without digests it is a model of before there were any."""
    shutil.copytree(folder, to)
    if not digests:
        (to / "digests.json").unlink()
    return to


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_an_edited_file_of_a_plain_folder_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    edited = copied(folder, tmp_path / "model", digests=True)
    with open(edited / name, "ab") as file:
        file.write(b" ")  # still JSON
    with pytest.raises(
        ZeroVLError, match=rf"edited or damaged .*\n  {name}: expected sha256 \w+\.\.\., found \w+\.\.\.\n"
    ):
        zerovl.load(str(edited))
    (edited / "digests.json").unlink()  # the change is meant
    if name != "model.safetensors":
        assert zerovl.load(str(edited)).encode_text(["red"]).shape[0] == 1


def test_a_missing_file_and_broken_digests_are_named(folder: Path, tmp_path: Path) -> None:
    edited = copied(folder, tmp_path / "model", digests=True)
    (edited / "vocab.txt").write_text("of something else")  # beside the model, so nobody's concern
    (edited / "tokenizer.json").unlink()
    with pytest.raises(ZeroVLError, match=r"\n  tokenizer\.json: missing\n"):
        zerovl.load(str(edited))
    for text, words in (("{", "not valid JSON"), ("[1]", "not a mapping"), ('{"config.json": 3}', "not a mapping")):
        (edited / "digests.json").write_text(text)
        with pytest.raises(ZeroVLError, match=rf"digests\.json: {words}"):
            zerovl.load(str(edited))


def test_what_a_model_without_digests_has_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    narrow = {**config, "text_config": {**config["text_config"], "vocab_size": 7}}
    weights = (folder / "model.safetensors").read_bytes()
    for file, content, words in (
        ("config.json", b'{"format": ', r"config\.json: not valid JSON"),
        ("config.json", b"[]", r"config\.json: holds list, expected a mapping"),
        (
            "config.json",
            json.dumps(config | {"image_size": "wide"}).encode(),
            r"config\.json: image_size: 'wide' is not",
        ),
        ("config.json", json.dumps(config | {"mean": [0.5]}).encode(), r"config\.json: mean\.1: .* is not accepted"),
        ("config.json", json.dumps(narrow).encode(), r"model\.safetensors: weights do not fit"),
        ("model.safetensors", weights[:-10], r"model\.safetensors: damaged"),
        ("model.safetensors", b"", r"model\.safetensors: damaged"),
        ("tokenizer.json", b"{}", r"tokenizer\.json: no usable tokenizer"),
        ("tokenizer.json", b'{"version": "1.0", "trunc', r"tokenizer\.json: no usable tokenizer"),
        ("tokenizer_config.json", b"[]", r"tokenizer_config\.json: holds list, expected a mapping"),
        ("tokenizer_config.json", b"\xff", r"tokenizer_config\.json: not valid JSON"),
    ):
        broken = copied(folder, tmp_path / "model", digests=False)
        (broken / file).write_bytes(content)
        with pytest.raises(ZeroVLError, match=words):
            zerovl.load(str(broken))
        shutil.rmtree(broken)


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    other = copied(folder, tmp_path / "model", digests=False)
    captions = [f"{word} {word}s of another {word}ing" for word in ("apple", "quince", "mulberry", "fig")]
    tokenizer_training.save(tokenizer_training.train(lambda: captions, 500), tmp_path / "tokenizer")
    shutil.copy(tmp_path / "tokenizer" / "tokenizer.json", other / "tokenizer.json")
    with pytest.raises(ZeroVLError, match=r"its tokenizer has \d+ tokens, its text tower \d+"):
        zerovl.load(str(other))


def test_digests_are_no_part_of_what_a_release_is(folder: Path, tmp_path: Path) -> None:
    """A model of before there were any is the same version when it is registered again."""
    older = copied(folder, tmp_path / "model", digests=False)
    identities = [
        release_files.identity({name: release_files.describe_file(path) for name, path in files.items()})
        for files in map(release_files.collect, (older, folder))
    ]
    assert "digests.json" in release_files.collect(folder)
    assert identities[0] == identities[1]
