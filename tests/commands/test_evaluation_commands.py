"""embed, score and search with a fake model, and with every broken input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zerovl
from tests.support.fake_world import FakeEncoder, png
from zerovl.commands import embeddings as commands
from zerovl.errors import ZeroVLError

HEAD = "image,image_id,caption,caption_id\n"
GOOD = HEAD + (
    'more/green.PNG,7,"colour 0 250 0, says a ""quote""",71\n'
    "red.png,0,colour 250 0 0,1\n"
    "more/green.PNG,7,colour 0 240 0,72\n"
    '"blue.png",3,"colour 0\n0 250",31\n'
)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    made = FakeEncoder()
    monkeypatch.setattr(zerovl, "load", lambda reference: made)
    return made


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text(GOOD, encoding="utf-8")
    return path


def test_embed_one_row_a_caption_row_and_a_picture_once(
    encoder: FakeEncoder, pairs: Path, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "embeddings.npz"
    commands.embed("model", pairs, picture_folder, out)
    assert encoder.encoded_pictures == 3
    arrays = np.load(out, allow_pickle=False)
    assert sorted(arrays) == ["caption_id", "image_embeddings", "image_id", "text_embeddings"]
    assert arrays["image_id"].tolist() == [7, 0, 7, 3]
    assert arrays["caption_id"].tolist() == [71, 1, 72, 31]
    images = arrays["image_embeddings"]
    assert images.dtype == np.float32
    assert np.array_equal(images[0], images[2])
    green = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    green[:, 1] = 250
    assert np.allclose(images[0], encoder.encode_pixels(green)[0])
    assert np.allclose(arrays["text_embeddings"][3], encoder.encode_text(["colour 0\n0 250"])[0])
    assert "4 captions and 3 pictures" in capsys.readouterr().out

    commands.score(out)
    metrics = json.loads(capsys.readouterr().out)
    assert list(metrics) == [f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)] + ["rsum"]
    assert metrics["i2t_r1"] == 100
    assert metrics["t2i_r10"] == 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,caption,caption_id\na,b,1\n", "no column image_id; found image, caption, caption_id"),
        ("", "no column image, image_id, caption, caption_id; found nothing"),
        (HEAD, "has no rows"),
        (HEAD + "red.png,zero,words,1\n", "line 2: image_id is 'zero', expected an integer"),
        (HEAD + "red.png,0,words,1\nred.png,0,  ,2\n", "line 3: caption is empty"),
        (HEAD + "red.png,0\n", "line 2: caption is empty"),
        (HEAD + "red.png,0,words,1\nnone.png,1,words,2\n", "line 3: picture 'none.png' is not in .* of 2 are not"),
        (HEAD + "red.png,0,words,1\nbroken.jpg,1,words,2\n", "line 3: picture .*broken.jpg cannot be read .not a pict"),
        (HEAD + 'red.png,0,"words,1\n', "unexpected end of data, after line"),
    ],
)
def test_embed_names_what_is_broken_and_writes_nothing(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    path, out = tmp_path / "pairs.csv", tmp_path / "out.npz"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ZeroVLError, match=message):
        commands.embed("model", path, picture_folder, out)
    assert not out.exists()


def test_embed_refuses_other_encodings_and_missing_files(picture_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(HEAD.encode() + "red.png,0,caf\xe9,1\n".encode("latin-1"))
    with pytest.raises(ZeroVLError, match=r"latin\.csv: not UTF-8 at byte"):
        commands.embed("model", path, picture_folder, tmp_path / "out.npz")
    with pytest.raises(ZeroVLError, match=r"none\.csv: cannot be read"):
        commands.embed("model", tmp_path / "none.csv", picture_folder, tmp_path / "out.npz")


def test_embed_reads_a_byte_order_mark_and_long_captions(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("\ufeff" + HEAD + f"red.png,0,colour 250 0 0 {'x' * 500_000},1\n", encoding="utf-8")
    commands.embed("model", path, picture_folder, tmp_path / "out.npz")
    assert (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image_embeddings": np.eye(2)}, "no array text_embeddings, image_id; found image_embeddings"),
        (
            {"image_embeddings": np.eye(2), "text_embeddings": np.eye(2) * np.nan, "image_id": np.arange(2)},
            r"file\.npz: text_embeddings: row 0 has NaN",
        ),
        (
            {"image_embeddings": np.eye(2), "text_embeddings": np.eye(2), "image_id": np.arange(3)},
            r"image_id: shape \(3,\)",
        ),
        (
            {"image_embeddings": np.eye(2), "text_embeddings": np.eye(2), "image_id": np.array([{}, 1])},
            "not a readable .npz",
        ),
    ],
)
def test_score_names_what_is_broken(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "file.npz", **arrays)
    with pytest.raises(ZeroVLError, match=message):
        commands.score(tmp_path / "file.npz")


def test_score_of_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ZeroVLError, match="no such file"):
        commands.score(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04torn")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("text", "zip", "empty"):
        with pytest.raises(ZeroVLError, match=rf"{name}\.npz: not a readable .npz"):
            commands.score(tmp_path / f"{name}.npz")
    np.save(tmp_path / "single.npy", np.eye(2))
    with pytest.raises(ZeroVLError, match="a single array"):
        commands.score(tmp_path / "single.npy")


def test_search_ranks_skips_broken_and_draws(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.png"
    commands.search("model", "colour 0 245 0", picture_folder, 2, out)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("skipped 1 unreadable:")
    assert "broken.jpg (not a picture)" in lines[0]
    place, value, path = lines[1].split(maxsplit=2)
    assert (place, path) == ("1", str(picture_folder / "more" / "green.PNG"))
    assert 0.9 < float(value) <= 1
    assert len(lines) == 4
    assert lines[3] == f"drawn: {out}"
    assert Image.open(out).width == 1200


def test_search_of_more_pictures_than_a_batch(
    encoder: FakeEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "BATCH", 3)
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(png((number * 30, 0, 0)))
    commands.search("model", "colour 150 0 0", tmp_path, 100, None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == encoder.encoded_pictures == 8
    assert lines[0].endswith("5.png")


@pytest.mark.parametrize(
    ("query", "top", "name", "message"),
    [
        ("red", 0, "pictures", "--top 0"),
        (" ", 1, "pictures", "query is empty"),
        ("red", 1, "nowhere", "nowhere: no such folder"),
        ("red", 1, "empty", "no pictures in it"),
        ("red", 1, "bad", "none of the 1 pictures can be read"),
    ],
)
def test_search_names_what_is_wrong(
    encoder: FakeEncoder, picture_folder: Path, query: str, top: int, name: str, message: str
) -> None:
    parent = picture_folder.parent
    (parent / "empty").mkdir()
    (parent / "bad").mkdir()
    (parent / "bad" / "a.gif").write_bytes(b"")
    with pytest.raises(ZeroVLError, match=message):
        commands.search("model", query, parent / name, top, None)
