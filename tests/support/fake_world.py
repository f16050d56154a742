"""A small world with planted embeddings: pictures of one colour, captions that name it roughly."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zerovl.evaluation.pool import Embeddings, Pool, encode
from zerovl.images import decode_rgb
from zerovl.model.preprocess import EvaluationTransform

HOSTILE = "<script>alert('x')</script> & <img src=http://evil.example/a.png> \"quoted\""
WIDTH = 32


def caption(colour: tuple[int, int, int]) -> str:
    """Name a colour by its numbers."""
    return "colour {} {} {}".format(*colour)


def png(colour: tuple[int, int, int], side: int = 16) -> bytes:
    """Make a picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, "PNG")
    return out.getvalue()


class FakeEncoder:
    """Embeds a colour: of a picture its mean, of a caption the numbers in it; `seed` is its weights."""

    device = torch.device("cpu")
    temperature = 0.1

    def __init__(self, seed: int = 0, blind: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(3, WIDTH, generator=generator)
        self.other = torch.randn(3, WIDTH, generator=generator) if blind else self.weights
        self.digest = f"seed {seed}, blind {blind}"
        self.encoded_pictures = 0
        self.transform = EvaluationTransform(image_size=4, resize_size=4)

    def encode_pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Embed pixels (n, 3, 4, 4), and count them."""
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 4, 4)
        self.encoded_pictures += len(images)
        return self._embed(images.float().mean((2, 3)), self.weights)

    def encode_text(self, captions: Sequence[str], batch_size: int = 128) -> torch.Tensor:
        """Embed captions by the numbers in them."""
        colours = [([float(word) for word in text.split() if word.isdigit()] + [0.0] * 3)[:3] for text in captions]
        return self._embed(torch.tensor(colours), self.other)

    def _embed(self, colours: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.cos(colours / 60 @ weights), dim=1)


@dataclass
class FakeBatch:
    """Some samples of a source, as the loader gives them."""

    images: torch.Tensor
    captions: list[list[str]]
    image_ids: list[int]
    keys: list[str]


@dataclass
class World:
    """Samples by source: (image bytes, captions, image_id)."""

    samples: dict[str, list[tuple[bytes, list[str], int]]] = field(default_factory=dict)

    def batches(self, source: str, transform: Callable[[Image.Image], torch.Tensor], size: int) -> list[FakeBatch]:
        """Return a source's samples in batches."""
        rows = self.samples[source]
        return [
            FakeBatch(
                torch.stack([transform(decode_rgb(data)) for data, _, _ in part]),
                [captions for _, captions, _ in part],
                [image_id for _, _, image_id in part],
                [f"{source}-{image_id}" for _, _, image_id in part],
            )
            for part in (rows[start : start + size] for start in range(0, len(rows), size))
        ]

    def encoded(self, *models: FakeEncoder, size: int = 5) -> tuple[Pool, list[Embeddings]]:
        """Embed all sources with each model."""
        batches = {
            name: (len(rows), self.batches(name, models[0].transform, size)) for name, rows in self.samples.items()
        }
        return encode(batches, models, size)

    def fetch(self, pool: Pool) -> Callable[[int], bytes]:
        """Return what gives the picture of a row of the pool."""
        return lambda image: self.samples[pool.sources[pool.image_source[image]]][int(pool.image_row[image])][0]


def make_world() -> World:
    """Two sources with the same image ids from 0, one to three captions each, rough ones among them."""
    generator = np.random.default_rng(0)
    made = World()
    for source in ("alpha", "beta"):
        rows = []
        for image_id in range(14):
            colour = tuple(int(value) for value in generator.integers(256, size=3))
            rough = tuple(int(value / 80) * 80 for value in colour)
            texts = [caption(colour), caption(rough), f"{HOSTILE} {image_id}"][: 1 + image_id % 3]  # type: ignore[arg-type]
            rows.append((png(colour), texts, image_id))  # type: ignore[arg-type]
        made.samples[source] = rows
    return made


def make_picture_folder(folder: Path) -> Path:
    """Red, green, blue and a broken one, in a folder with a sub-folder."""
    (folder / "more").mkdir(parents=True)
    for name, colour in (("red.png", (250, 0, 0)), ("more/green.PNG", (0, 250, 0)), ("blue.png", (0, 0, 250))):
        (folder / name).write_bytes(png(colour))
    (folder / "broken.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("not for us")
    return folder
