"""`zerovl embed` with a fake model, and with every broken input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.embeddings import assert_same_embeddings
from tests.support.fake_world import FakeEncoder
from zerovl.commands import embed, score
from zerovl.errors import ZeroVLError

HEAD = "image,image_id,caption,caption_id\n"
GOOD = HEAD + (
    'more/green.PNG,7,"colour 0 250 0, says a ""quote""",71\n'
    "red.png,0,colour 250 0 0,1\n"
    "more/green.PNG,7,colour 0 240 0,72\n"
    '"blue.png",3,"colour 0\n0 250",31\n'
)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text(GOOD, encoding="utf-8")
    return path


def test_embed_one_row_a_caption_row_and_a_picture_once(
    encoder: FakeEncoder, pairs: Path, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "embeddings.npz"
    embed.run("model", pairs, picture_folder, out)
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
    assert_same_embeddings(torch.from_numpy(images[:1]), encoder.encode_pixels(green))
    assert_same_embeddings(torch.from_numpy(arrays["text_embeddings"][3:]), encoder.encode_text(["colour 0\n0 250"]))
    assert "4 captions and 3 pictures" in capsys.readouterr().out

    score.run(out)
    metrics = json.loads(capsys.readouterr().out)
    assert list(metrics) == [f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)] + [
        *("rsum", "rsum_low", "rsum_high", "chance_rsum")
    ]
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
        (HEAD + "red.png,0\n", "line 2: row has 2 cells, the header has 4; fill it in or delete it"),
        (HEAD + "red.png,0,words,1\nnone.png,1,words,2\n", "line 3: picture 'none.png' is not in .* of 2 are not"),
        (HEAD + "red.png,0,words,1\nbroken.jpg,1,words,2\n", "line 3: picture .*broken.jpg cannot be read .not a pict"),
        (HEAD + 'red.png,0,"words,1\n', r"line 2: not valid CSV \(unexpected end of data\); fix the row there"),
    ],
)
def test_embed_names_what_is_broken_and_writes_nothing(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    path, out = tmp_path / "pairs.csv", tmp_path / "out.npz"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ZeroVLError, match=message):
        embed.run("model", path, picture_folder, out)
    assert not out.exists()


def test_embed_refuses_other_encodings_and_missing_files(picture_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(HEAD.encode() + "red.png,0,caf\xe9,1\n".encode("latin-1"))
    with pytest.raises(ZeroVLError, match=r"latin\.csv: line 2, byte 47 \(0xe9\): not UTF-8; save it as UTF-8"):
        embed.run("model", path, picture_folder, tmp_path / "out.npz")
    with pytest.raises(ZeroVLError, match=r"none\.csv: cannot be read"):
        embed.run("model", tmp_path / "none.csv", picture_folder, tmp_path / "out.npz")


def test_embed_reads_a_byte_order_mark_and_long_captions(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("\ufeff" + HEAD + f"red.png,0,colour 250 0 0 {'x' * 500_000},1\n", encoding="utf-8")
    embed.run("model", path, picture_folder, tmp_path / "out.npz")
    assert (tmp_path / "out.npz").exists()
