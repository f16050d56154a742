"""`zerovl embed` that was interrupted goes on with what it had, where nothing has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import zerovl
from tests.support.fake_world import FakeEncoder, png
from zerovl.commands import embed
from zerovl.errors import ZeroVLError
from zerovl.indexing import pairs_table, update
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


def _in_parts_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pairs_table, update):
        monkeypatch.setattr(module, "PART", 1)


def test_embed_goes_on_where_it_was_interrupted(
    encoder: FakeEncoder, pairs: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.npz", tmp_path / "out.npz"
    embed.run("model", pairs, picture_folder, whole, None)
    _in_parts_of_one(monkeypatch)
    monkeypatch.setattr(zerovl, "load", lambda reference: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        embed.run("model", pairs, picture_folder, out, None)
    assert not out.exists()
    monkeypatch.setattr(zerovl, "load", lambda reference: encoder)
    encoder.encoded_pictures = 0
    embed.run("model", pairs, picture_folder, out, None)
    assert encoder.encoded_pictures == 1  # of three
    assert not (tmp_path / "out.npz.parts").exists()
    for name, array in np.load(whole).items():
        assert np.array_equal(np.load(out)[name], array)


@pytest.mark.parametrize(
    ("change", "embedded"), [("model", 3), ("picture", 2), ("caption", 1), ("cut part", 2), ("cut description", 3)]
)
def test_parts_of_anything_else_are_made_again(
    pairs: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, embedded: int
) -> None:
    out, parts = tmp_path / "out.npz", tmp_path / "out.npz.parts" / "pictures" / "parts"
    monkeypatch.setattr(fetch, "check_reference", lambda reference: None)
    _in_parts_of_one(monkeypatch)
    monkeypatch.setattr(zerovl, "load", lambda reference: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        embed.run("model", pairs, picture_folder, out, None)
    encoder = FakeEncoder(seed=int(change == "model"))
    if change == "picture":
        (picture_folder / "red.png").write_bytes(png((1, 2, 3)) + b"more")
    elif change == "caption":
        pairs.write_text(pairs.read_text().replace("250 0 0", "9 9 9"), encoding="utf-8")
    elif change == "cut part":
        cut = next(path for path in parts.glob("*.npy") if not path.name.endswith(".ids.npy"))
        cut.write_bytes(cut.read_bytes()[:-1])
    elif change == "cut description":
        (parts / "made-with.json").write_text("{")
    monkeypatch.setattr(zerovl, "load", lambda reference: encoder)
    embed.run("model", pairs, picture_folder, out, None)
    assert encoder.encoded_pictures == embedded
    whole = tmp_path / "whole.npz"
    embed.run("model", pairs, picture_folder, whole, None)
    for name, array in np.load(whole).items():
        assert np.array_equal(np.load(out)[name], array)


@pytest.mark.parametrize("change", ["nothing", "model", "images"])
def test_pictures_that_were_all_there_are_used_by_the_same_model_and_folder_alone(
    pairs: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    out = tmp_path / "out.npz"
    monkeypatch.setattr(fetch, "check_reference", lambda reference: None)
    monkeypatch.setattr(zerovl, "load", lambda reference: FakeEncoder())
    with monkeypatch.context() as patch:
        patch.setattr(pairs_table._Captions, "embed", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            embed.run("model", pairs, picture_folder, out, None)
    images = picture_folder
    if change == "images":
        images = shutil.copytree(picture_folder, tmp_path / "elsewhere")
    encoder = FakeEncoder(seed=int(change == "model"))
    monkeypatch.setattr(zerovl, "load", lambda reference: encoder)
    embed.run("model", pairs, images, out, None)
    assert encoder.encoded_pictures == (0 if change == "nothing" else 3)
    found = np.load(out)
    assert str(found["model"]) == encoder.digest
    assert str(found["images"]) == str(images)


def test_a_folder_in_the_way_is_left_alone(
    encoder: FakeEncoder, pairs: Path, picture_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.npz.parts").mkdir()
    (tmp_path / "out.npz.parts" / "mine.txt").write_text("mine")
    with pytest.raises(ZeroVLError, match=r"out\.npz\.parts: in the way"):
        embed.run("model", pairs, picture_folder, tmp_path / "out.npz", None)
    assert (tmp_path / "out.npz.parts" / "mine.txt").exists()
