"""What left as a `VisionTextDualEncoder` of transformers comes back as the model that it was; others are named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.exchange import check_trains_on, make_bundle
from zerovl import cli
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.interop.base import synthetic_sample
from zerovl.interop.export import export
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.import_folder import import_folder
from zerovl.model.encoder import Encoder

SAMPLE = synthetic_sample()
CNN = {"image_tower": {"name": "mobilenetv3_small_050", "options": {}}, "image_size": 64, "resize_size": 72}
SHORTEST = {"resize_mode": "shortest", "interpolation": "lanczos", "mean": [0.5, 0.4, 0.3]}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"pooling": "first", **SHORTEST}),
        ("roberta", {"pooling": "first"}),
        ("camembert", {"pooling": "first", **CNN}),
        ("clip_text_model", {"pooling": "auto"}),
    ],
    ids=["bert", "roberta", "camembert-mobilenet", "clip"],
)
def test_there_and_back_is_the_same_model(
    family: str, changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = make_bundle(tmp_path, family, **changes)
    export(before, CardFacts("tiny"), "hugging-face", SAMPLE, tmp_path / "theirs")
    assert cli.main(["import", str(tmp_path / "theirs"), "--out", str(tmp_path / "back")]) == 0
    assert "transformers gave 4 drawn pictures and 4 captions the same embeddings" in capsys.readouterr().out
    after = Encoder.load(tmp_path / "back", "cpu")
    ours, theirs = before.model.state_dict(), after.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert after.digest == before.digest
    assert after.transform == before.transform
    assert after.model.architecture.mean == before.model.architecture.mean
    assert (after.tokenizer.max_tokens, after.model.architecture.pooling) == (
        before.tokenizer.max_tokens,
        before.model.architecture.pooling,
    )
    check_trains_on(tmp_path / "back")


def test_what_has_no_counterpart_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    export(make_bundle(tmp_path, "bert", pooling="first"), CardFacts("tiny"), "hugging-face", SAMPLE, folder)
    weights = load_file(folder / "model.safetensors")
    weights["text_model.pooler.dense.bias"][0] = 0.1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ZeroVLError, match=r"config\.json: the pooler of its text tower has learned"):
        import_folder(folder, tmp_path / "out")
    config = read_json(folder / "config.json")
    config["text_config"]["model_type"] = "distilbert"
    write_json(folder / "config.json", config)
    with pytest.raises(ZeroVLError, match="its towers are timm_wrapper and distilbert; read are timm_wrapper with"):
        import_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
