"""Uploads that would cost the server its memory are refused from their header, and of no upload anything is kept."""

from __future__ import annotations

import io
import logging
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.support.fake_world import png
from zerovl.images import decode_rgb
from zerovl.model.preprocess import EvaluationTransform

REFUSED = "This cannot be used as a picture: "


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG: https://www.w3.org/TR/png-3/#5Chunk-layout"""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *more: bytes) -> bytes:
    """A grey PNG that says so many pixels and holds ten million zeros for them, in ten kilobytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + chunk(b"IEND", b"")


def inflated(kind: bytes) -> bytes:
    """A chunk named `p` that says 80 MiB in as many kilobytes."""
    return chunk(kind, b"p\0\0" + zlib.compress(bytes(80 << 20), 9))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """Pictures whose pixels were decoded."""
    its: list[Image.Image] = []
    for kind in (Image.Image, *{type(Image.open(io.BytesIO(png((0, 0, 0)))))}):
        load = kind.load
        monkeypatch.setattr(kind, "load", lambda self, load=load: its.append(self) or load(self))
    return its


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: png_of(8000, 6251), "8000x6251 pixels, more than 50000000."),
        (lambda: png_of(12_000, 12_000), "12000x12000 pixels, more than 50000000."),
        (lambda: png_of(65_000, 65_000), "Image size (4225000000 pixels) exceeds limit of"),
        (lambda: png_of(4, 4, inflated(b"iCCP")), "ValueError: Decompressed"),
        (lambda: png_of(4, 4, inflated(b"zTXt")), "ValueError: Decompressed"),
    ],
    ids=["50 megapixels", "144 megapixels", "4 gigapixels", "a profile of 80 MiB", "a text of 80 MiB"],
)
def test_bombs_are_refused_before_a_pixel_is_decoded(
    client: TestClient, decoded: list[Image.Image], made: Callable[[], bytes], reason: str
) -> None:
    data = made()
    assert len(data) < 200_000
    answer = client.post("/api/search", content=data)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(REFUSED + reason)
    assert not decoded


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)], ids=["lying", "standing"])
def test_a_strip_takes_no_more_memory_than_its_middle(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    asked: list[tuple[int, int]] = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, *more: asked.append(to) or resize(self, to, *more))
    strip = io.BytesIO()
    Image.new("L", size, 200).save(strip, "PNG")
    assert len(strip.getvalue()) < 200
    pixels = EvaluationTransform(224, 224, "shortest", "bicubic")(decode_rgb(strip.getvalue()))
    assert pixels.shape == (3, 224, 224)
    assert (pixels == 200).all()
    assert asked
    assert max(map(max, asked)) <= 32 * 224


def test_of_an_upload_nothing_is_kept(
    changing: tuple[TestClient, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    client, _ = changing
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)  # read from the environment again
    made: list[Path] = []
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda *_, **__: made.append(temporary))
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda *_, **__: made.append(temporary))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    large = io.BytesIO()
    Image.effect_noise((1200, 1200), 90).save(large, "PNG")  # over a megabyte, more than servers spool in memory
    assert len(large.getvalue()) > 1 << 20
    caplog.set_level(logging.DEBUG)
    for content, status in (
        (png((100, 100, 100)), 200),
        (large.getvalue(), 200),
        (b"a secret that is no picture", 422),
    ):
        assert client.post("/api/search", content=content, headers={"X-Name": "a secret.png"}).status_code == status
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not made
    assert not list(temporary.iterdir())
    said = capfd.readouterr()
    assert "secret" not in caplog.text + said.out + said.err
    shown = client.get("/api/some").json()["results"]
    assert [result["id"] for result in shown] == list(range(12))  # none more in the index than before
