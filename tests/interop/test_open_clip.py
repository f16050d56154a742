"""open_clip itself reads what is written for it, from wherever the folder lies, and embeds the same."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.exchange import lines_of_card, make_bundle
from zerovl import cli
from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.interop.base import synthetic_sample
from zerovl.interop.export import export
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.open_clip_export import OpenClip
from zerovl.interop.standalone import hand_along
from zerovl.model.encoder import Encoder

open_clip: Any = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

SAMPLE = synthetic_sample()
CNN = {"image_tower": {"name": "test_efficientnet", "options": {}}, "image_size": 160, "resize_size": 180}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"pooling": "first"}),
        ("bert", {"pooling": "mean", **CNN}),
        ("roberta", {"pooling": "mean", "logit_bias": -7.5}),
        ("siglip_text_model", {"max_tokens": 16, "logit_bias": -7.5}),
    ],
    ids=["bert-first-vit", "bert-mean-efficientnet", "roberta-mean-bias", "siglip-last-vit"],
)
def test_open_clip_embeds_as_the_model(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    encoder = make_bundle(tmp_path, family, **changes)
    export(encoder, CardFacts("tiny"), "open-clip", SAMPLE, tmp_path / "made")
    folder = (tmp_path / "made").rename(tmp_path / "moved")
    config = read_json(folder / "open_clip_config.json")["model_cfg"]
    assert config["vision_cfg"]["timm_model_name"] in ("local-dir:image_tower", "test_efficientnet")
    assert config["text_cfg"].get("hf_model_name", "text_tower") == "text_tower"  # relative, so the folder may move
    from zerovl.interop.standalone.zerovl_open_clip import load, towers

    model, _, own_transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", **towers(folder))
    _, transform, tokenizer = load(folder)
    with torch.inference_mode():
        images = model.eval().encode_image(torch.stack([transform(picture) for picture in SAMPLE.pictures]), True)
        texts = model.encode_text(tokenizer(SAMPLE.captions), True)
    assert float((images - encoder.encode_image(SAMPLE.pictures)).abs().max()) < 1e-5
    assert float((texts - encoder.encode_text(SAMPLE.captions)).abs().max()) < 1e-5
    assert float(model.logit_scale.exp()) == pytest.approx(1 / float(encoder.model.temperature), rel=1e-6)
    if "logit_bias" in changes:
        assert float(model.logit_bias) == float(encoder.model.logit_bias)
    # open_clip's own transform is the nearest of its kinds, and another one: it has no resize before the crop.
    assert (own_transform(SAMPLE.pictures[0]) - transform(SAMPLE.pictures[0])).abs().max() > 0.01


def test_open_clips_transform_is_ours_where_nothing_is_cropped(tmp_path: Path) -> None:
    encoder = make_bundle(tmp_path, image_size=40, resize_size=40, image_tower=CNN["image_tower"])
    export(encoder, CardFacts("tiny"), "open-clip", SAMPLE, tmp_path / "out")
    from zerovl.interop.standalone.zerovl_open_clip import load, towers

    _, _, own_transform = open_clip.create_model_and_transforms(
        f"local-dir:{tmp_path / 'out'}", **towers(tmp_path / "out")
    )
    _, transform, _ = load(tmp_path / "out")
    for picture in SAMPLE.pictures:
        torch.testing.assert_close(own_transform(picture), transform(picture), rtol=0, atol=1e-6)


def test_the_lines_of_the_card_run_in_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = make_bundle(tmp_path)
    assert cli.main(["export", str(tmp_path / "bundle"), "--to", "open-clip", "--out", str(tmp_path / "out")]) == 0
    assert "the same embeddings" in capsys.readouterr().out
    lines = lines_of_card(tmp_path / "out")
    program = f"from PIL import Image\npicture = Image.linear_gradient('L')\n{lines}\nprint(float(scores))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path / "out",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    from PIL import Image

    expected = encoder.encode_text(["two skiers"]) @ encoder.encode_image([Image.linear_gradient("L")]).T
    assert float(done.stdout) == pytest.approx(float(expected), abs=1e-5)


def test_what_is_handed_along_needs_no_zerovl(tmp_path: Path) -> None:
    from zerovl.interop.standalone import zerovl_open_clip

    hand_along(zerovl_open_clip, tmp_path)
    assert "from zerovl_transform import Transform" in (tmp_path / "zerovl_open_clip.py").read_text()
    assert "zerovl." not in (tmp_path / "zerovl_open_clip.py").read_text()


@pytest.mark.parametrize(
    ("family", "pooling", "reason"),
    [
        ("bert", "last", "pooled by 'last', and open_clip has first and mean"),
        ("mpnet", "mean", "family mpnet, and open_clip has bert, roberta, xlm-roberta and SigLIP's"),
        ("clip_text_model", "auto", "family clip_text_model"),
        ("siglip_text_model", "auto", "it cuts captions at 12 tokens and reads rows of 16"),
    ],
)
def test_a_model_that_open_clip_cannot_hold_is_refused(family: str, pooling: str, reason: str, tmp_path: Path) -> None:
    encoder = make_bundle(tmp_path, family, pooling)
    with pytest.raises(ZeroVLError, match=rf"{reason}.*use --to onnx"):
        export(encoder, CardFacts("tiny"), "open-clip", SAMPLE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_features_behind_a_layer_that_open_clip_leaves_out_are_refused(tmp_path: Path) -> None:
    encoder: Encoder = make_bundle(tmp_path, image_tower={"name": "mobilenetv3_small_050", "options": {}})
    with pytest.raises(ZeroVLError, match="gives 1024 features behind its last layer"):
        OpenClip().check(encoder)
