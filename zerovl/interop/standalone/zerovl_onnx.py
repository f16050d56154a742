"""Use the two towers of this folder with onnxruntime on the CPU. Needs onnxruntime, tokenizers, numpy and Pillow.

model = zerovl_onnx.Model()
scores = model.encode_text(["two skiers"]) @ model.encode_image([picture]).T      # (m, n)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

from zerovl.interop.standalone.zerovl_transform import Transform

HERE = Path(__file__).resolve().parent
IMAGE, TEXT = "image.onnx", "text.onnx"

Array = npt.NDArray[Any]


class Model:
    """Both towers; embeddings are L2-normalised, so a dot product is a cosine."""

    def __init__(self, folder: Path | str = HERE) -> None:
        folder = Path(folder)
        self.transform = Transform(folder)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # cuts and pads as the file says
        providers = ["CPUExecutionProvider"]
        self.image = onnxruntime.InferenceSession(str(folder / IMAGE), providers=providers)
        self.text = onnxruntime.InferenceSession(str(folder / TEXT), providers=providers)

    def encode_image(self, pictures: Sequence[Image.Image]) -> Array:
        """Embed pictures of any mode and size; float32 (n, D)."""
        pixels = np.stack([self.transform(picture) for picture in pictures])  # (n, 3, H, W)
        return np.asarray(self.image.run(None, {"pixels": pixels})[0])

    def encode_text(self, captions: Sequence[str]) -> Array:
        """Embed captions, cut at the model's longest row; float32 (m, D)."""
        rows = self.tokenizer.encode_batch(list(captions))
        input_ids = np.array([row.ids for row in rows], np.int64)  # (m, L)
        attention_mask = np.array([row.attention_mask for row in rows], np.int64)  # (m, L)
        return np.asarray(self.text.run(None, {"input_ids": input_ids, "attention_mask": attention_mask})[0])
