"""`zerovl embed` that was interrupted goes on with what it had, where nothing has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import zerovl
from tests.support.fake_world import FakeEncoder, png
from zerovl.commands import embed
from zerovl.errors import ZeroVLError
from zerovl.model import embedding_parts
from zerovl.registry import fetch


class Interrupted(FakeEncoder):
    """Is stopped when it has embedded some pictures."""

    left = 2

    def encode_pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Embed pixels, for a while."""
        if self.left < len(images):
            raise KeyboardInterrupt
        self.left -= len(images)
        return super().encode_pixels(images)


def test_embed_goes_on_where_it_was_interrupted(
    encoder: FakeEncoder, pairs: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.npz", tmp_path / "out.npz"
    embed.run("model", pairs, picture_folder, whole)
    monkeypatch.setattr(embedding_parts, "PART", 1)
    monkeypatch.setattr(zerovl, "load", lambda reference: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        embed.run("model", pairs, picture_folder, out)
    assert not out.exists()
    monkeypatch.setattr(zerovl, "load", lambda reference: encoder)
    encoder.encoded_pictures = 0
    embed.run("model", pairs, picture_folder, out)
    assert encoder.encoded_pictures == 1  # of three
    assert not (tmp_path / "out.npz.parts").exists()
    for name, array in np.load(whole).items():
        assert np.array_equal(np.load(out)[name], array)


@pytest.mark.parametrize("change", ["model", "picture", "caption", "cut part", "cut description"])
def test_parts_of_anything_else_are_made_again(
    pairs: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    out, parts = tmp_path / "out.npz", tmp_path / "out.npz.parts"
    monkeypatch.setattr(fetch, "check_reference", lambda reference: None)
    monkeypatch.setattr(embedding_parts, "PART", 1)
    monkeypatch.setattr(zerovl, "load", lambda reference: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        embed.run("model", pairs, picture_folder, out)
    encoder = FakeEncoder(seed=int(change == "model"))
    if change == "picture":
        (picture_folder / "red.png").write_bytes(png((1, 2, 3)) + b"more")
    elif change == "caption":
        pairs.write_text(pairs.read_text().replace("250 0 0", "9 9 9"), encoding="utf-8")
    elif change == "cut part":
        next(parts.glob("pictures-*.npz")).write_bytes(b"PK")
    elif change == "cut description":
        (parts / "description.json").write_text("{")
    monkeypatch.setattr(zerovl, "load", lambda reference: encoder)
    embed.run("model", pairs, picture_folder, out)
    assert encoder.encoded_pictures == (2 if change == "cut part" else 3)


def test_a_folder_in_the_way_is_left_alone(
    encoder: FakeEncoder, pairs: Path, picture_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.npz.parts").mkdir()
    (tmp_path / "out.npz.parts" / "mine.txt").write_text("mine")
    with pytest.raises(ZeroVLError, match=r"out\.npz\.parts: in the way"):
        embed.run("model", pairs, picture_folder, tmp_path / "out.npz")
    assert (tmp_path / "out.npz.parts" / "mine.txt").exists()
