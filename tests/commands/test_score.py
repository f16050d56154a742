"""`zerovl score` with every file that is not of embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zerovl.commands import score
from zerovl.errors import ZeroVLError
from zerovl.evaluation import pairs_table
from zerovl.indexing.arrays import NpzEmbeddings


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
            r"file\.npz: image_id holds Python objects, which are not read; store numbers or text",
        ),
    ],
)
def test_score_names_what_is_broken(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "file.npz", **arrays)
    with pytest.raises(ZeroVLError, match=message):
        score.run(tmp_path / "file.npz")


def test_what_else_a_file_has_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = {"image_embeddings": np.eye(2), "text_embeddings": np.eye(2), "image_id": np.arange(2)}
    np.savez(tmp_path / "file.npz", **arrays, notes=np.array([{}, 1]))  # Python objects, which reading would refuse
    score.run(tmp_path / "file.npz")
    assert json.loads(capsys.readouterr().out)["rsum"] == 600.0


def test_score_of_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ZeroVLError, match="no such file"):
        score.run(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04torn")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("text", "zip", "empty"):
        with pytest.raises(ZeroVLError, match=rf"{name}\.npz: not a readable .npz") as raised:
            score.run(tmp_path / f"{name}.npz")
        assert "pickle" not in str(raised.value)
        with pytest.raises(ZeroVLError, match=rf"{name}\.npz: not a readable .npz"):
            NpzEmbeddings(tmp_path / f"{name}.npz", width=2)
    np.save(tmp_path / "single.npy", np.eye(2))
    with pytest.raises(ZeroVLError, match="a single array"):
        score.run(tmp_path / "single.npy")


def test_what_embed_writes_and_score_does_not_take_is_told_how_to_make_it_again(tmp_path: Path) -> None:
    """A table of `zerovl embed`, and embeddings of pictures alone: "make it with `zerovl embed`" would lead back."""
    (tmp_path / "table").write_bytes(b"PAR1 and more")
    pq.write_table(pa.table({"image_embedding": [[1.0]], "key": ["a"]}), tmp_path / "table.parquet")
    np.savez(tmp_path / "pictures.npz", image_embeddings=np.eye(2), key=np.array(["a", "b"]))
    fix = r"make it with `zerovl embed --pairs CSV --out FILE\.npz`"
    with pytest.raises(ZeroVLError, match=rf"table: a table \(Parquet\), expected an \.npz; {fix}"):
        score.run(tmp_path / "table")
    with pytest.raises(ZeroVLError, match=r"table\.parquet: no column text_embedding, image_id; found .*--pairs CSV"):
        score.run(tmp_path / "table.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(ZeroVLError, match=r"cut\.parquet: not a readable table"):
        score.run(tmp_path / "cut.parquet")
    with pytest.raises(ZeroVLError, match=rf"no array text_embeddings, image_id; .*{fix}"):
        score.run(tmp_path / "pictures.npz")


def test_a_table_has_the_scores_of_the_npz(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pairs_table, "_ROWS", 4)
    generator = np.random.default_rng(0)
    ids = np.array([7, 7, 3, 1, 1, 9, 0, 2, 5, 5, 4])
    images, texts = (generator.standard_normal((len(ids), 6)).astype(np.float32) for _ in range(2))
    images = images[[int(np.flatnonzero(ids == number)[0]) for number in ids]]  # one a picture
    images, texts = (its / np.linalg.norm(its, axis=1, keepdims=True) for its in (images, texts + images))
    np.savez(tmp_path / "pairs.npz", image_embeddings=images, text_embeddings=texts, image_id=ids)
    lists = {
        f"{name}_embedding": pa.FixedSizeListArray.from_arrays(pa.array(its.ravel()), 6)
        for name, its in (("image", images), ("text", texts))
    }
    pq.write_table(pa.table({"image_id": ids, **lists}), tmp_path / "pairs.parquet")
    said = []
    for kind in ("npz", "parquet"):
        score.run(tmp_path / f"pairs.{kind}")
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
