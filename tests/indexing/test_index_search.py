"""The exact search of an index: in pieces as at once, and without pictures that are gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.fake_world import FakeEncoder, png
from zerovl.evaluation.retrieval import top_items
from zerovl.indexing import search
from zerovl.indexing.index import Index
from zerovl.indexing.listing import in_parts, listing_of
from zerovl.indexing.search import find, nearest, widened
from zerovl.indexing.update import update


@pytest.mark.parametrize("k", [1, 7, 40, 100])
@pytest.mark.parametrize("chunk", [1, 16, 1000])
def test_in_pieces_as_at_once(k: int, chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(-2, 3, (40, 3), generator=generator).float()  # small integers: exact, and full of ties
    query = torch.tensor([1.0, -1.0, 2.0])
    expected_rows, expected_scores = top_items(query, items, k)
    rows, scores = nearest(items.numpy(), query.numpy(), k, chunk)
    assert rows.tolist() == expected_rows.tolist()
    assert np.array_equal(scores, expected_scores)


def test_all_finite_numbers_of_16_bits_are_widened_as_numpy_does() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)].reshape(-1, 1)
    assert len(numbers) == 63488
    found = widened(numbers)
    assert found.dtype == np.float32
    assert np.array_equal(found.view(np.uint32), numbers.astype(np.float32).view(np.uint32))  # -0.0 is not 0.0
    assert np.array_equal(widened(numbers[::-3]), numbers[::-3].astype(np.float32))  # one that lies in steps
    assert widened(found) is found


def test_pictures_that_are_gone_are_skipped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, encoder = tmp_path / "pictures", FakeEncoder()
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.png").write_bytes(png((20 * number, 100, 100)))
    update(tmp_path / "index", listing_of(folder, None), encoder, "demo")  # type: ignore[arg-type]
    index = Index(tmp_path / "index")
    (query,) = encoder.encode_text(["colour 100 100 100"]).numpy()
    order = [one.key for one in find(index, query, 12).pictures]
    assert order[0] == "05.png"
    for key in order[:3]:
        (folder / key).unlink()
    found = find(index, query, 2)
    assert [one.key for one in found.pictures] == order[3:5]
    assert found.gone == order[:3]
    assert found.scores == sorted(found.scores, reverse=True)
    assert [one.key for one in find(index, query, 50).pictures] == order[3:]
    skipped = find(index, query, 1, skip=int(order[3][:2]))
    assert [one.key for one in skipped.pictures] == [order[4]]
    assert len(list(in_parts(range(7), 3))) == 3
    monkeypatch.setattr(search, "MOST_ASKED", 4)
    assert [one.key for one in find(index, query, 2).pictures] == order[3:4]  # of the four nearest three are gone
