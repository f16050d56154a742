"""onnxruntime reads both graphs and embeds the same, for any number of pictures and captions of any length."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.exchange import lines_of_card, make_bundle
from tests.support.text_towers import TOKENS
from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.interop.base import synthetic_sample
from zerovl.interop.export import export
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.onnx_export import _trace

for name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(name, reason=f"{name} is not installed")

SAMPLE = synthetic_sample()
CNN = {"image_tower": {"name": "test_efficientnet", "options": {}}, "image_size": 64, "resize_size": 72}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"pooling": "mean", "logit_bias": -5.0}),
        ("siglip_text_model", {"max_tokens": 16, **CNN}),
    ],
    ids=["bert-mean-vit", "siglip-efficientnet"],
)
def test_onnxruntime_embeds_as_the_model(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    encoder = make_bundle(tmp_path, family, **changes)
    export(encoder, CardFacts("tiny"), "onnx", SAMPLE, tmp_path / "out")
    from zerovl.interop.standalone.zerovl_onnx import Model

    model = Model(tmp_path / "out")
    for count in (1, 2, 4):
        found = model.encode_image(SAMPLE.pictures[:count])
        assert np.abs(found - encoder.encode_image(SAMPLE.pictures[:count]).numpy()).max() < 1e-4
    for captions in (["dog"], ["a dog", "a red circle"], [*SAMPLE.captions, ""]):
        found = model.encode_text(captions)
        assert np.abs(found - encoder.encode_text(captions).numpy()).max() < 1e-4
    numbers = read_json(tmp_path / "out" / "model.json")
    assert numbers["temperature"] == pytest.approx(encoder.model.temperature.item())
    assert numbers["logit_bias"] == changes.get("logit_bias") or numbers["logit_bias"] == pytest.approx(
        float(encoder.model.logit_bias)
    )
    assert numbers["max_tokens"] == changes.get("max_tokens", TOKENS)
    expected = ["README.md", "image.onnx", "model.json", "preprocess.json", "text.onnx", "tokenizer.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".py") == expected
    check_that_the_card_runs_without_torch(tmp_path / "out")


def check_that_the_card_runs_without_torch(folder: Path) -> None:
    """A graph is for machines that have no torch; the file that is handed along must not bring it in."""
    before = "import sys\nsys.modules['torch'] = sys.modules['zerovl'] = None\nfrom PIL import Image\n"
    program = f"{before}picture = Image.linear_gradient('L')\n{lines_of_card(folder)}\nprint(scores.shape)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 1)"


def test_a_tower_that_cannot_be_traced_is_named(tmp_path: Path) -> None:
    import torch

    class Branching(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels if float(pixels.sum()) > 0 else -pixels

    with pytest.raises(ZeroVLError, match=r"cannot turn a tower into image\.onnx.*use --to open-clip"):
        _trace(Branching(), {"pixels": torch.ones(2, 3)}, {}, tmp_path / "image.onnx")
