"""`zerovl embed` with a fake model, with every broken input, from a table or a folder."""

from __future__ import annotations

import csv
import json
import logging
import tracemalloc
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.support.embeddings import assert_same_embeddings
from tests.support.fake_world import FakeEncoder, png
from tests.support.raw_sources import write_tar
from zerovl import cli
from zerovl.commands import embed, score
from zerovl.errors import ZeroVLError
from zerovl.indexing import pairs_table, update
from zerovl.indexing.pairs_files import ParquetPairs
from zerovl.indexing.pairs_target import PairsTarget

HEAD = "image,image_id,caption,caption_id\n"


def test_pictures_are_found_as_prepare_finds_them(encoder: FakeEncoder, picture_folder: Path, tmp_path: Path) -> None:
    (picture_folder / normalize("NFD", "é.png")).write_bytes(png((250, 0, 0)))
    pairs = tmp_path / "names.csv"
    pairs.write_text(f"{HEAD}é.png,0,a,0\nmore\\green.PNG,1,b,1\n", encoding="utf-8")
    for out in (tmp_path / "a.npz", tmp_path / "a.parquet"):
        embed.run("model", pairs, picture_folder, out, None)
        assert not PairsTarget(out).left_out.exists()
    assert np.load(tmp_path / "a.npz")["image"].tolist() == ["é.png", "more\\green.PNG"]
    assert pq.read_table(tmp_path / "a.parquet").column("image").to_pylist() == ["é.png", "more\\green.PNG"]


def test_embed_one_row_a_caption_row_and_a_picture_once(
    encoder: FakeEncoder, pairs: Path, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "embeddings.npz"
    embed.run("model", pairs, picture_folder, out, None)
    assert encoder.encoded_pictures == 3
    arrays = np.load(out, allow_pickle=False)
    names = ["caption_id", "image", "image_embeddings", "image_id", "images", "model", "text_embeddings"]
    assert sorted(arrays) == names
    assert str(arrays["model"]) == encoder.digest
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
        (HEAD + 'red.png,0,"words,1\n', r"line 2: not valid CSV \(unexpected end of data\); fix the row there"),
        (
            HEAD + "red.png,zero,words,1\n",
            "none of its 1 row can be embedded; line 2: 'red.png': image_id is 'zero', exp",
        ),
        (
            HEAD + "a.png,0,words,1\nb.png,1,words,2\n",
            "none of its 2 rows can be embedded; line 2: 'a.png': not in .*--im",
        ),
        (HEAD + "broken.jpg,0,words,1\n", r"none of its pictures can be embedded; 1 not a picture; first broken\.jpg"),
    ],
)
def test_embed_refuses_what_has_nothing_to_embed_and_writes_nothing(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    path, out = tmp_path / "pairs.csv", tmp_path / "out.npz"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ZeroVLError, match=message):
        embed.run("model", path, picture_folder, out, None)
    assert not out.exists()


def test_embed_leaves_out_and_lists_what_is_broken(
    encoder: FakeEncoder,
    picture_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("zerovl"), "propagate", True)  # a command may have set up the log before
    path, out = tmp_path / "pairs.csv", tmp_path / "out.npz"
    rows = [
        *("red.png,0,colour 250 0 0,1", "red.png,zero,words,2", "red.png,0,  ,3", "red.png,0", "none.png,1,words,4"),
        *("broken.jpg,2,words,5", "broken.jpg,2,more words,6", "a\0b.png,4,words,8", "blue.png,3,colour 0 0 250,7"),
        f"red.png,{2**63},words,9",
    ]
    path.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    embed.run("model", path, picture_folder, out, None)
    arrays = np.load(out, allow_pickle=False)
    assert arrays["caption_id"].tolist() == [1, 7]
    assert_same_embeddings(
        torch.from_numpy(arrays["text_embeddings"]), encoder.encode_text(["colour 250 0 0", "colour 0 0 250"])
    )
    assert (arrays["image_embeddings"][0] != arrays["image_embeddings"][1]).any()
    with open(PairsTarget(out).left_out, encoding="utf-8", newline="") as file:
        listed = {row["lines"]: (row["image"], row["reason"]) for row in csv.DictReader(file)}
    assert listed["3"] == ("red.png", "image_id is 'zero', expected an integer")
    assert listed["4"] == ("red.png", "caption is empty")
    assert listed["5"] == ("", "row has 2 cells, the header has 4")
    assert listed["6"] == ("none.png", "No such file or directory")
    assert listed["7"] == listed["8"] == ("broken.jpg", "not a picture")
    assert "zero byte" in listed["9"][1]
    assert listed["11"] == ("red.png", f"image_id is '{2**63}', expected an integer of 64 bits")
    assert f"8 of 10 rows of {path} are left out (2 not a picture, 1 " in caplog.text

    path.write_text(HEAD + "red.png,0,colour 250 0 0,1\n", encoding="utf-8")
    embed.run("model", path, picture_folder, out, None)
    assert not PairsTarget(out).left_out.exists()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_the_embeddings_of_pairs_are_never_held_together(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """4,096 rows of 4,096 numbers are 64 MiB a side, parts of 256 rows 4; NumPy holds 16 MiB twice as it copies."""
    for module in (pairs_table, update):
        monkeypatch.setattr(module, "PART", 256)
    encoder.weights = encoder.other = torch.randn(3, 4096, generator=torch.Generator().manual_seed(0))
    rows = [f"red.png,0,colour {number} 0 0,{number}" for number in range(4096)]
    (tmp_path / "pairs.csv").write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    tracemalloc.start()
    try:
        embed.run("model", tmp_path / "pairs.csv", picture_folder, tmp_path / f"out{suffix}", None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**26


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "GIF", "BMP"])
def test_embed_reads_all_kinds_of_pictures(encoder: FakeEncoder, tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (16, 16), (250, 0, 0)).save(tmp_path / "a.tif", kind)
    (tmp_path / "pairs.csv").write_text(HEAD + "a.tif,0,red,1\n", encoding="utf-8")
    embed.run("model", tmp_path / "pairs.csv", tmp_path, tmp_path / "out.npz", None)
    assert np.load(tmp_path / "out.npz")["image_embeddings"].shape == (1, 32)


def test_embed_refuses_other_encodings_and_missing_files(picture_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(HEAD.encode() + "red.png,0,caf\xe9,1\n".encode("latin-1"))
    with pytest.raises(ZeroVLError, match=r"latin\.csv: line 2, byte 47 \(0xe9\): not UTF-8; save it as UTF-8"):
        embed.run("model", path, picture_folder, tmp_path / "out.npz", None)
    with pytest.raises(ZeroVLError, match=r"none\.csv: cannot be read"):
        embed.run("model", tmp_path / "none.csv", picture_folder, tmp_path / "out.npz", None)


def test_embed_reads_a_byte_order_mark_and_long_captions(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("\ufeff" + HEAD + f"red.png,0,colour 250 0 0 {'x' * 500_000},1\n", encoding="utf-8")
    embed.run("model", path, picture_folder, tmp_path / "out.npz", None)
    assert (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_all_pictures_of_a_folder(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"out{suffix}"
    write_tar(picture_folder / "0.tar", [("a.png", png((9, 9, 9)))])
    assert cli.main(["embed", "model", "--images", str(picture_folder), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 4 pictures, 32 wide\n"
    assert f"1 input left out (1 not a picture); {PairsTarget(out).left_out} lists them" in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"{out.name}.broken.csv", "pictures"]
    if suffix == ".npz":
        found = dict(np.load(out, allow_pickle=False))
        keys, embeddings, model = found["key"].tolist(), found["image_embeddings"], str(found["model"])
        assert found["size"].tolist() == [len(png((9, 9, 9))), -1, -1, -1]
    else:
        table = pq.read_table(out)
        keys, model = table["key"].to_pylist(), table.schema.metadata[b"model"].decode()
        embeddings = np.array(table["image_embedding"].to_pylist(), np.float32)
    assert keys == ["0.tar:a.png", "blue.png", "more/green.PNG", "red.png"]
    assert model == encoder.digest
    colours = ["colour 9 9 9", "colour 0 0 250", "colour 0 250 0", "colour 250 0 0"]
    assert_same_embeddings(torch.from_numpy(embeddings), encoder.encode_text(colours))


def test_a_folder_is_looked_at_before_a_gpu_is_waited_for(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed.own_gpus, "take", lambda *_: pytest.fail("waits for a GPU"))
    with pytest.raises(ZeroVLError, match=r"--out .*out\.csv: expected a name that ends in \.npz or \.parquet"):
        embed.run_pictures("model", picture_folder, tmp_path / "out.csv", 1)
    with pytest.raises(ZeroVLError, match="none: no such folder"):
        embed.run_pictures("model", tmp_path / "none", tmp_path / "out.npz", 1)


def test_what_was_embedded_becomes_an_index(
    encoder: FakeEncoder, pairs: Path, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, index = tmp_path / "out.npz", tmp_path / "index"
    for words in (["--pairs", str(pairs)], []):
        assert cli.main(["embed", "model", *words, "--images", str(picture_folder), "--out", str(out)]) == 0
        assert cli.main(["index", "model", "--images", str(out), "--out", str(index)]) == 0
        assert cli.main(["search", "model", "colour 0 250 0", "--index", str(index), "--top", "1"]) == 0
        assert capsys.readouterr().out.endswith(f"   1  1.0000  {picture_folder / 'more' / 'green.PNG'}\n")
    with pytest.raises(ZeroVLError, match=r"--out .*out\.csv: expected a name that ends in \.npz or \.parquet"):
        embed.run("model", pairs, picture_folder, tmp_path / "out.csv", 1)


def test_rows_that_all_have_another_fault_are_listed(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path
) -> None:
    """Its picture can be embedded, and no row has one that is usable."""
    table, out = tmp_path / "pairs.csv", tmp_path / "out.npz"
    table.write_text(HEAD + "red.png,zero,words,1\nbroken.jpg,1,words,2\n", encoding="utf-8")
    with pytest.raises(ZeroVLError, match=r"none of its 2 rows can be embedded \(.*1 not a picture.*broken\.csv lists"):
        embed.run("model", table, picture_folder, out, None)
    assert not out.exists()
    assert PairsTarget(out).left_out.read_text().count("\n") == 3


def test_a_table_has_the_rows_of_the_npz(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, slow, fast = tmp_path / "pairs.csv", tmp_path / "slow.npz", tmp_path / "fast.parquet"
    rows = [
        *("red.png,0,colour 250 0 0,1", "red.png,zero,words,2", "none.png,1,words,4", "broken.jpg,2,words,5"),
        *("blue.png,3,colour 0 0 250,7", "red.png,0,colour 9 9 9,8", "blue.png,3,colour 250 0 0,9"),
    ]
    table.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    words = ["embed", "model", "--pairs", str(table), "--images", str(picture_folder), "--out"]
    assert cli.main([*words, str(slow)]) == 0
    encoder.encoded_pictures = 0
    monkeypatch.setattr(pairs_table, "PART", 3)
    with monkeypatch.context() as patch:  # interrupted when the pictures are there, and some captions
        patch.setattr(ParquetPairs, "add", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli.main([*words, str(fast)]) == 130
    assert not fast.exists()
    assert len(list((tmp_path / "fast.parquet.parts").glob("captions-*/*.ids.npy"))) == 1
    assert cli.main([*words, str(fast)]) == 0
    assert encoder.encoded_pictures == 2
    expected, found = np.load(slow), pq.read_table(fast)
    assert found["caption_id"].to_pylist() == expected["caption_id"].tolist() == [1, 7, 8, 9]
    assert found["image"].to_pylist() == expected["image"].tolist()
    for name in ("image", "text"):
        values = torch.tensor(found[f"{name}_embedding"].to_pylist())
        assert_same_embeddings(values, torch.from_numpy(expected[f"{name}_embeddings"]))
    assert PairsTarget(fast).left_out.read_text() == PairsTarget(slow).left_out.read_text()
    assert not (tmp_path / "fast.parquet.parts").exists()
    table.write_text(HEAD + "none.png,0,words,1\n", encoding="utf-8")
    with pytest.raises(ZeroVLError, match=r"none of its 1 row can be embedded; line 2: 'none\.png': not in .*--images"):
        embed.run("model", table, picture_folder, tmp_path / "none.parquet", 1)
    assert not PairsTarget(tmp_path / "none.parquet").left_out.exists()
