"""open_clip's own towers, OpenAI's CLIP: the same embeddings with the real tokenizer, and clear words for others."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.exchange import check_trains_on
from tests.support.open_clip_folders import make_native, make_resnet
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.interop.base import largest_difference, synthetic_sample
from zerovl.interop.import_folder import import_folder
from zerovl.interop.open_clip_import import _embed
from zerovl.model.encoder import Encoder
from zerovl.yaml_file import read_yaml

SAMPLE = synthetic_sample()


@pytest.mark.parametrize("settings", [{"quick_gelu": True}, {"custom_text": True}], ids=["openai", "custom-text"])
def test_the_embeddings_are_those_of_open_clip(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = make_native(tmp_path / "theirs", **settings)
    import_folder(folder, tmp_path / "ours")
    encoder = Encoder.load(tmp_path / "ours", "cpu")
    images, texts = _embed(folder, SAMPLE)
    assert largest_difference(encoder.encode_image(SAMPLE.pictures), images) < 1e-5
    assert largest_difference(encoder.encode_text(SAMPLE.captions), texts) < 1e-5
    assert encoder.transform.resize_mode == "shortest-rounded"
    check_trains_on(tmp_path / "ours")


def test_a_resnet_is_timm_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RN50 in full width, since timm has it in no other; the import compares, and is refused beyond 1e-5."""
    import_folder(make_resnet(tmp_path / "theirs"), tmp_path / "ours")
    assert "open_clip gave 4 drawn pictures and 4 captions the same embeddings" in capsys.readouterr().out
    encoder = Encoder.load(tmp_path / "ours", "cpu")
    assert encoder.model.architecture.image_tower == "resnet50_clip"
    assert float(encoder.encode_image(SAMPLE.pictures).std(0).max()) > 1e-3  # pictures differ
    assert read_yaml(tmp_path / "ours" / "train.yaml")["model"]["image_tower"]["options"] == {"img_size": 64}


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_native(tmp_path_factory.mktemp("native") / "theirs")


@pytest.mark.parametrize(
    ("section", "change", "reason"),
    [
        ("vision_cfg", {"layers": [1, 1, 1, 1]}, r"layers \[1, 1, 1, 1\], width 32 .*\[3, 4, 6, 3\] at 64"),
        (
            "vision_cfg",
            {"attentional_pool": True},
            "attentional_pool is True, which the towers that are read do not have",
        ),
        ("text_cfg", {"pool_type": "last"}, "pool_type is 'last' and no_causal_mask False; read are argmax"),
        ("text_cfg", {"no_causal_mask": True}, "pool_type is 'argmax' and no_causal_mask True"),
        ("text_cfg", {"norm_kwargs": {"eps": 1e-6, "bias": False}}, "norm_kwargs is .*; read is eps alone"),
        ("text_cfg", {"act_kwargs": {"inplace": True}}, "act_kwargs is .* of gelu"),
        ("text_cfg", {"tokenizer_kwargs": {"strip_sep_token": True}}, "tokenizer_kwargs is .*; read is clean alone"),
    ],
)
def test_other_towers_are_named(
    native: Path, section: str, change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(native, tmp_path / "theirs"))
    config = read_json(folder / "open_clip_config.json")
    config["model_cfg"][section] |= change
    write_json(folder / "open_clip_config.json", config)
    with pytest.raises(ZeroVLError, match=reason):
        import_folder(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
