"""Turn pictures into what the image tower was evaluated with. Needs numpy and Pillow.

Both sides are resized to the same length (the shape is squashed), or the shorter one is, then the centre is cropped.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from zerovl.picture_looks import to_rgb

FILE = "preprocess.json"
LONGEST = 32  # what of a long picture is resized, in shorter sides: a strip takes gigabytes if resized whole


class Transform:
    """Makes of a picture the normalised pixels of one model: its `preprocess.json` says how."""

    def __init__(self, folder: Path | str) -> None:
        settings = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
        self.resize: int = settings["resize"]
        self.crop: int = settings["crop"]
        self.mode: str = settings["mode"]
        self.interpolation = Image.Resampling[settings["interpolation"].upper()]
        self.mean = np.array(settings["mean"], np.float32).reshape(3, 1, 1)
        self.std = np.array(settings["std"], np.float32).reshape(3, 1, 1)

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Turn a picture of any mode and size, as people see it, into normalised pixels, float32 (3, crop, crop)."""
        image = self._middle(to_rgb(image))
        size = self._resized(image.size)
        if image.size != size:
            image = image.resize(size, self.interpolation)
        left, top = (self._offset(side) for side in size)
        cropped = image.crop((left, top, left + self.crop, top + self.crop))
        pixels = np.asarray(cropped).transpose(2, 0, 1).astype(np.float32)  # (3, crop, crop), 0 to 255
        normalised: npt.NDArray[np.float32] = (pixels / np.float32(255) - self.mean) / self.std
        return normalised

    def _middle(self, image: Image.Image) -> Image.Image:
        if self.mode == "squash":
            return image
        left, top = (max(0, (side - LONGEST * min(image.size) + 1) // 2) for side in image.size)
        return image.crop((left, top, image.width - left, image.height - top)) if left or top else image

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.mode == "squash":
            return self.resize, self.resize
        width, height = size
        longer = int(self.resize * max(size) / min(size))
        return (longer, self.resize) if width > height else (self.resize, longer)

    def _offset(self, side: int) -> int:
        return (side - self.crop) // 2 if self.mode == "shortest" else round((side - self.crop) / 2)
