"""Approximate search against the exact one: recall, exact scores, and files that are not used."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.support.fake_world import FakeEncoder
from zerovl.errors import ZeroVLError
from zerovl.indexing import approximate
from zerovl.indexing.approximate import Approximate, make, open_nearest, path_of
from zerovl.indexing.arrays import index_arrays
from zerovl.indexing.index import Index
from zerovl.indexing.search import find, nearest

needs_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason=f"faiss is not installed: {approximate.INSTALL}")
PICTURES, WIDTH, QUERIES, TOP = 4000, 32, 20, 10


def random_embeddings(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    return generator.standard_normal((PICTURES + QUERIES, WIDTH), dtype=np.float32)


def clustered_embeddings(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    centres = generator.standard_normal((PICTURES // 50, WIDTH), dtype=np.float32)
    return centres[generator.integers(0, len(centres), PICTURES + QUERIES)] + 0.5 * random_embeddings(generator)


def make_index(folder: Path, embeddings: npt.NDArray[np.floating], dtype: str | None = None) -> Index:
    np.savez(folder.with_suffix(".npz"), image_embeddings=embeddings)
    index_arrays(folder, folder.with_suffix(".npz"), FakeEncoder(), "demo@1", dtype)  # type: ignore[arg-type]
    return Index(folder)


def without_digest(index: Index) -> Index:
    """Open an index as if it were made before there were digests."""
    file = index.folder / "index.json"
    described = json.loads(file.read_text())
    del described["digest"]
    file.write_text(json.dumps(described))
    return Index(index.folder)


def recall(search: Approximate, index: Index, queries: npt.NDArray[np.float32]) -> float:
    found = 0
    for query in queries:
        rows, scores = search(index.embeddings, query, TOP)
        expected_rows, _ = nearest(index.embeddings, query, TOP)
        own = index.embeddings[rows].astype(np.float32) @ query
        assert np.allclose(scores, own, atol=1e-6)  # exact, whatever the lists hold
        assert np.all(np.diff(scores) <= 0)
        assert len(set(rows.tolist())) == TOP
        found += len({*rows.tolist()} & {*expected_rows.tolist()})
    return found / (TOP * len(queries))


# Measured: 0.8 of random embeddings, where no picture is like another, and 1.0 of clustered ones.
@needs_faiss
@pytest.mark.parametrize(("drawn", "least"), [(random_embeddings, 0.45), (clustered_embeddings, 0.95)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_most_of_what_is_nearest_is_found(drawn: object, least: float, dtype: str, tmp_path: Path) -> None:
    embeddings = torch.from_numpy(drawn(np.random.default_rng(0)))  # type: ignore[operator]
    embeddings = torch.nn.functional.normalize(embeddings, dim=1)
    index = make_index(tmp_path / "index", embeddings[:PICTURES].numpy(), dtype)
    assert make(index.folder) == (path_of(index.folder, index.description), False)
    search = open_nearest(index)
    assert isinstance(search, Approximate)
    looked_into, lists = search.lists
    assert looked_into < lists / 2
    queries = embeddings[PICTURES:].numpy()
    assert recall(search, index, queries) >= least
    assert make(index.folder)[1]  # it is there and fits

    rows, scores = search(index.embeddings, queries[0], PICTURES // 2)  # more than the lists have: exact
    expected = nearest(index.embeddings, queries[0], PICTURES // 2)
    assert np.array_equal(rows, expected[0])
    assert np.array_equal(scores, expected[1])
    assert len(search(index.embeddings, queries[0], 2 * PICTURES)[0]) == PICTURES


@needs_faiss
def test_an_index_of_few_pictures_is_searched_as_the_exact_search_does(tmp_path: Path) -> None:
    embeddings = random_embeddings(np.random.default_rng(0))[:3]
    index = make_index(tmp_path / "index", embeddings)
    make(index.folder)
    query = embeddings[1]
    exact = find(index, query, 5)
    assert find(index, query, 5, search=open_nearest(index)) == exact
    assert len(exact.pictures) == 3


@needs_faiss
def test_a_file_that_does_not_fit_is_named_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    embeddings = random_embeddings(np.random.default_rng(0))[:200]
    index = make_index(tmp_path / "index", embeddings)
    first, _ = make(index.folder)
    embeddings[7] *= -1  # as many pictures, and one of them another
    index = make_index(tmp_path / "index", embeddings)
    assert open_nearest(index) is nearest
    assert f"{first}: of other embeddings than the index has now, so all pictures are looked at" in caplog.text
    second, was_there = make(index.folder)
    assert not was_there
    assert not first.exists()
    assert isinstance(open_nearest(index), Approximate)

    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    assert open_nearest(index) is nearest
    assert f"{second}: damaged, or of a version of faiss that is not this one, so all pictures" in caplog.text
    assert make(index.folder) == (second, False)  # made again, whole
    assert second.read_bytes() == whole
    make_index(tmp_path / "other", embeddings[:100])
    second.write_bytes(make(tmp_path / "other")[0].read_bytes())
    assert open_nearest(index) is nearest
    assert f"{second}: of 100 pictures, 32 wide, not 200, 32 wide" in caplog.text


def test_an_index_of_before_digests_can_be_searched(tmp_path: Path) -> None:
    index = without_digest(make_index(tmp_path / "index", random_embeddings(np.random.default_rng(0))[:3]))
    assert index.description.digest == ""
    assert open_nearest(index) is nearest


@needs_faiss
def test_of_an_index_without_digest_nothing_is_made(tmp_path: Path) -> None:
    index = without_digest(make_index(tmp_path / "index", random_embeddings(np.random.default_rng(0))[:3]))
    with pytest.raises(ZeroVLError, match="index: says no digest of its embeddings; run `zerovl index` again"):
        make(index.folder)
