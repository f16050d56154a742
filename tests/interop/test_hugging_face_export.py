"""transformers itself reads what is written for it, and embeds the same."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import VisionTextDualEncoderModel, VisionTextDualEncoderProcessor

from tests.support.exchange import lines_of_card, make_bundle
from zerovl import cli
from zerovl.errors import ZeroVLError
from zerovl.interop.base import synthetic_sample
from zerovl.interop.export import export
from zerovl.interop.hub_card import CardFacts

SAMPLE = synthetic_sample()
# A tower whose features lie behind its last layer, which needs no option.
CNN = {
    "image_tower": {"name": "mobilenetv3_small_050", "options": {"num_classes": 0}},
    "image_size": 64,
    "resize_size": 72,
}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"pooling": "first"}),
        ("mpnet", {"pooling": "first", **CNN}),
        ("clip_text_model", {"pooling": "auto"}),
    ],
    ids=["bert-first", "mpnet-first-mobilenet", "clip-last"],
)
def test_transformers_embeds_as_the_model(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    encoder = make_bundle(tmp_path, family, **changes)
    export(encoder, CardFacts("tiny"), "hugging-face", SAMPLE, tmp_path / "out")
    model = VisionTextDualEncoderModel.from_pretrained(tmp_path / "out")
    processor = VisionTextDualEncoderProcessor.from_pretrained(tmp_path / "out", backend="pil")
    inputs = processor(text=SAMPLE.captions, images=SAMPLE.pictures, return_tensors="pt", padding=True, truncation=True)
    with torch.inference_mode():
        found = model(**inputs)
    images, texts = encoder.encode_image(SAMPLE.pictures), encoder.encode_text(SAMPLE.captions)
    assert float((found.image_embeds - images).abs().max()) < 1e-5
    assert float((found.text_embeds - texts).abs().max()) < 1e-5
    logits = texts @ images.T / encoder.model.temperature.item()
    torch.testing.assert_close(found.logits_per_text, logits, rtol=0, atol=1e-3)
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir() if path.is_file()}) == 1


def test_a_pooler_that_is_nearly_linear_keeps_large_features(tmp_path: Path) -> None:
    """Trained towers have single features far from the others; tanh would bend them first."""
    encoder = make_bundle(tmp_path, "bert", "first")
    norm = encoder.model.get_submodule("text_tower.encoder.layer.1.output.LayerNorm")
    with torch.no_grad():
        norm.weight[3] *= 15
    export(encoder, CardFacts("tiny"), "hugging-face", SAMPLE, tmp_path / "out")  # raises beyond 1e-5


def test_the_lines_of_the_card_use_the_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_bundle(tmp_path, "bert", "first")
    export(encoder, CardFacts("tiny"), "hugging-face", SAMPLE, tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {"picture": Image.linear_gradient("L")}
    exec(lines_of_card(tmp_path / "out"), names)
    cosine = float(encoder.encode_text(["two skiers"]) @ encoder.encode_image([names["picture"]]).T)
    assert float(names["scores"]) == pytest.approx(cosine / encoder.model.temperature.item(), abs=1e-3)


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("bert", {"pooling": "mean"}, "its text tower bert is pooled by 'mean'"),
        ("distilbert", {"pooling": "first"}, "its text tower distilbert is pooled by 'first'"),
        ("siglip_text_model", {"max_tokens": 16}, "not a SiglipModel: its image tower vit_tiny_patch16"),
        ("bert", {"pooling": "first", "resize_size": 35}, "pictures of 35 cropped to 32 have no pixel in the middle"),
    ],
)
def test_what_is_not_a_dual_encoder_of_transformers_is_refused(
    family: str, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    encoder = make_bundle(tmp_path, family, **changes)
    with pytest.raises(ZeroVLError, match=rf"{reason}.*use --to onnx"):
        export(encoder, CardFacts("tiny"), "hugging-face", SAMPLE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_release_is_checked_with_its_own_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bundle(tmp_path, "bert", "first")
    (tmp_path / "bundle" / "sample").mkdir()
    with tarfile.open(tmp_path / "bundle" / "sample" / "pairs.tar", "w") as tar:
        for number, picture in enumerate(SAMPLE.pictures[:2]):
            jpg = io.BytesIO()
            picture.save(jpg, "JPEG")
            record = json.dumps({"key": f"k{number}", "captions": ["a dog", "not used"]}).encode()
            for suffix, data in (("jpg", jpg.getvalue()), ("json", record)):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (tmp_path / "bundle" / "MODEL_CARD.md").write_text("what was measured")
    out = tmp_path / "out"
    assert cli.main(["export", str(tmp_path / "bundle"), "--to", "hugging-face", "--out", str(out)]) == 0
    assert "gave 2 sample pairs of the release the same embeddings" in capsys.readouterr().out
    assert (out / "MODEL_CARD.md").read_text() == "what was measured"
    assert cli.main(["export", str(tmp_path / "bundle"), "--to", "hugging-face", "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
