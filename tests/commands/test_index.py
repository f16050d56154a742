"""`zerovl index` and `zerovl search --index`: from the command line, with a fake model and with a real one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import zerovl
from tests.support.fake_world import FakeEncoder
from tests.support.paths import ROOT
from zerovl import cli, log
from zerovl.commands import index as indexing
from zerovl.commands import search
from zerovl.errors import ZeroVLError
from zerovl.indexing.index import Index

BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"


def command(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_an_index_gives_what_the_folder_gives(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, out = tmp_path / "index", tmp_path / "found.png"
    assert command("index", "model", "--images", picture_folder, "--out", index) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{index}: 3 pictures, 32 wide: 3 new, 0 as before, 0 gone\n"
    assert f"1 input left out (1 not a picture); {index / 'broken.csv'} lists them" in printed.err
    assert command("search", "model", "colour 0 245 0", "--images", picture_folder) == 0
    expected = capsys.readouterr().out
    encoder.encoded_pictures = 0
    assert command("search", "model", "colour 0 245 0", "--index", index, "--out", out) == 0
    assert capsys.readouterr().out == f"{expected}drawn: {out}\n"
    assert encoder.encoded_pictures == 0
    assert Image.open(out).width == 1200
    (picture_folder / "more" / "green.PNG").unlink()
    assert command("search", "model", "colour 0 245 0", "--index", index, "--top", 2) == 0
    printed = capsys.readouterr()
    assert "skipped 1 that are gone since: more/green.PNG; run `zerovl index` again" in printed.err
    assert printed.out.count("\n") == 2
    picture_folder.rename(tmp_path / "moved")
    assert command("search", "model", "colour 0 245 0", "--index", index) == 2
    assert f"{index}: its pictures are no longer in {picture_folder}; run `zerovl index`" in capsys.readouterr().err
    assert command("index", "model", "--images", tmp_path / "moved", "--out", index) == 0
    assert capsys.readouterr().out.endswith(": 0 new, 2 as before, 1 gone\n")
    assert encoder.encoded_pictures == 0


def test_search_refuses_the_index_of_another_model(
    encoder: FakeEncoder,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    index = tmp_path / "index"
    command("index", "model@1", "--images", picture_folder, "--out", index)
    monkeypatch.setattr(search, "load_query_encoder", lambda reference: FakeEncoder(seed=1))
    assert command("search", "model@2", "red", "--index", index) == 2
    said = capsys.readouterr().err
    assert f"zerovl search: {index}: made with model@1 (seed 0, blin), and the model is model@2 (seed 1, blin)" in said
    assert command("search", "model@2", "red", "--index", tmp_path / "none") == 2
    assert "none: no such folder; make an index with `zerovl index`" in capsys.readouterr().err
    assert command("search", "model@2", "red", "--index", picture_folder) == 2
    assert "not an index (no index.json); make one with `zerovl index`" in capsys.readouterr().err


def test_only_what_a_csv_names(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, index = tmp_path / "pairs.csv", tmp_path / "index"
    table.write_text("image,caption\nred.png,a\nblue.png,b\nred.png,c\nnone.png,d\n../up.png,e\nblue.png\n")
    assert command("index", "model", "--images", picture_folder, "--pairs", table, "--out", index) == 0
    assert "2 pictures" in capsys.readouterr().out
    with open(index / "broken.csv", newline="") as file:
        listed = {row["picture"]: row["reason"] for row in csv.DictReader(file)}
    assert listed == {
        "none.png": "No such file or directory",
        "../up.png": "file name '../up.png' leaves its folder",
        "line 7": "row has 1 cells, the header has 2",
    }
    table.write_text("picture\nred.png\n")
    with pytest.raises(ZeroVLError, match="no column image; found picture"):
        indexing.run("model", picture_folder, table, tmp_path / "other", None, 1)


def test_embeddings_that_are_there(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup()
    names = ["red.png", "more/green.PNG", "red.png"]
    embeddings = encoder.encode_text(["colour 250 0 0", "colour 0 250 0", "colour 250 0 0"]).numpy()
    arrays = {"image_embeddings": 2 * embeddings, "image_id": np.array([4, 7, 4])}
    np.savez(tmp_path / "a.npz", **arrays)
    index = tmp_path / "index"
    assert command("index", "model", "--images", tmp_path / "a.npz", "--out", index) == 0
    assert "says no model; its embeddings are taken to be of model" in capsys.readouterr().err
    assert command("search", "model", "colour 0 250 0", "--index", index, "--top", 1) == 0
    assert capsys.readouterr().out == "   1  1.0000  7\n"
    assert command("search", "model", "red", "--index", index, "--out", tmp_path / "a.png") == 2
    assert "holds embeddings alone" in capsys.readouterr().err

    placed = {**arrays, "image": np.array(names), "images": str(picture_folder), "model": encoder.digest}
    np.savez(tmp_path / "b.npz", **placed)
    assert command("index", "model", "--images", tmp_path / "b.npz", "--out", index) == 0
    assert command("search", "model", "colour 0 250 0", "--index", index, "--top", 1) == 0
    assert capsys.readouterr().out.endswith(f"   1  1.0000  {picture_folder / 'more' / 'green.PNG'}\n")

    picture_folder.rename(tmp_path / "moved")
    index = tmp_path / "elsewhere"
    assert command("index", "model", "--images", tmp_path / "b.npz", "--out", index) == 0
    assert f"its pictures are not in {picture_folder} here" in capsys.readouterr().err
    assert command("search", "model", "colour 0 250 0", "--index", index, "--top", 1) == 0
    assert capsys.readouterr().out == "   1  1.0000  more/green.PNG\n"


def test_a_table_of_embeddings_gives_the_index_that_its_pictures_give(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.parquet", "a.npz"):
        assert command("embed", "model", "--images", picture_folder, "--out", tmp_path / name) == 0
        assert command("index", "model", "--images", tmp_path / name, "--out", tmp_path / f"{name}.index") == 0
    assert command("index", "model", "--images", picture_folder, "--out", tmp_path / "index") == 0
    own, *others = (Index(tmp_path / name) for name in ("index", "a.parquet.index", "a.npz.index"))
    for other in others:
        assert np.array_equal(other.embeddings, own.embeddings)
        assert other.pictures(range(len(own))) == own.pictures(range(len(own)))
    capsys.readouterr()
    moved = tmp_path / "moved"
    picture_folder.rename(moved)
    for name, message in (("index", "for which nothing is embedded again"), ("a.npz.index", "shows names alone")):
        assert command("search", "model", "red", "--index", tmp_path / name) == 2
        assert message in capsys.readouterr().err


def test_a_table_of_pairs_gives_each_picture_once(encoder: FakeEncoder, picture_folder: Path, tmp_path: Path) -> None:
    embeddings = encoder.encode_text(["colour 250 0 0", "colour 250 0 0", "colour 0 250 0"]).numpy()
    columns = {
        "image": ["red.png", "red.png", "more/green.PNG"],
        "image_id": [4, 4, 7],
        "image_embedding": pa.FixedSizeListArray.from_arrays(embeddings.ravel(), 32),
    }
    about = {"model": encoder.digest, "images": str(picture_folder)}
    pq.write_table(pa.table(columns).replace_schema_metadata(about), tmp_path / "pairs.parquet")
    indexing.run("model", tmp_path / "pairs.parquet", None, tmp_path / "index", None, 1)
    found = Index(tmp_path / "index")
    assert [one.key for one in found.pictures(range(2))] == ["red.png", "more/green.PNG"]
    assert np.array_equal(found.embeddings, embeddings[[0, 2]])

    for change, message in (
        ({"image_embedding": pa.FixedSizeListArray.from_arrays(0 * embeddings.ravel(), 32)}, "row 0 is not finite"),
        ({"image_embedding": pa.FixedSizeListArray.from_arrays(embeddings.ravel(), 16)[:3]}, "lists of 32 floats"),
    ):
        pq.write_table(pa.table(columns | change).replace_schema_metadata(about), tmp_path / "bad.parquet")
        with pytest.raises(ZeroVLError, match=message):
            indexing.run("model", tmp_path / "bad.parquet", None, tmp_path / "other", None, 1)
    pq.write_table(pa.table(columns).replace_schema_metadata(about | {"model": "another"}), tmp_path / "bad.parquet")
    with pytest.raises(ZeroVLError, match="made with a model another"):
        indexing.run("model", tmp_path / "bad.parquet", None, tmp_path / "other", None, 1)
    (tmp_path / "bad.parquet").write_bytes(b"PAR")
    with pytest.raises(ZeroVLError, match="not a Parquet file that can be read"):
        indexing.run("model", tmp_path / "bad.parquet", None, tmp_path / "other", None, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_embeddings": np.zeros((2, 32), np.float32)}, "row 0 is not finite, or is zero"),
        ({"image_embeddings": np.ones((2, 31), np.float32)}, r"\(2, 31\); the model's are floats \(N, 32\)"),
        ({"image_id": np.arange(3)}, "3 image_id and 2 image_embeddings"),
        ({"model": "another"}, "made with a model another"),
    ],
)
def test_embeddings_that_cannot_be_the_models_are_refused(
    encoder: FakeEncoder, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    arrays = {"image_embeddings": np.ones((2, 32), np.float32), "model": encoder.digest, **change}
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ZeroVLError, match=message):
        indexing.run("model", tmp_path / "a.npz", None, tmp_path / "index", None, 1)


@pytest.mark.parametrize(
    ("images", "ranks", "message"),
    [
        ("nowhere", 1, "no such folder"),
        ("empty", 1, "no pictures in it"),
        ("a.npz", 1, "no such file"),
        ("x", 0, "1 or"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: str, ranks: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(zerovl, "load", lambda reference: pytest.fail("loads"))
    with pytest.raises(ZeroVLError, match=message):
        indexing.run(str(BUNDLE), tmp_path / images, None, tmp_path / "index", None, ranks)
