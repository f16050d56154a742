"""Captions that do not fit their picture, by a scorer that knows the answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.support.raw_sources import asked_filters, jpeg, rows, run_prepare, write_csv
from zerovl.data.filtering.dataset_filters import leave_out_of_all
from zerovl.data.filtering.filter_models import models_asked
from zerovl.data.filtering.left_out_tables import Tallies, Tally, first_examples, load_tallies, save_tallies
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError
from zerovl.model.agreement import EncoderScorer
from zerovl.params import AgreementParams


class ByName:
    """Gives a caption that ends with a number a hundredth of it; the picture must be its own, by its width."""

    digest = "d1"

    def scores(self, pictures: Iterable[Image.Image], captions: Sequence[str], owners: Any) -> Any:
        widths = [picture.width for picture in pictures]
        for caption, owner in zip(captions, owners, strict=True):
            assert widths[owner] == int(caption.split()[0])
        return np.array([int(caption.split()[1]) / 100 for caption in captions], np.float32)


def write_source(folder: Path, split: str, scores: list[list[int]]) -> None:
    """A picture a list, each number the score of one of its captions."""
    table = []
    (folder / split).mkdir(parents=True)
    for number, of in enumerate(scores):
        (folder / split / f"{number}.jpg").write_bytes(jpeg(number, (20 + number, 20)))
        table += [(f"{number}.jpg", number, f"{20 + number} {score}", 10 * number + n) for n, score in enumerate(of)]
    write_csv(folder / f"{split}_anno.csv", table)


def scored(root: Path, **bounds: Any) -> Manifest:
    """The filter over what `prepare` made of `root/raw`."""
    manifest = run_prepare(root, shard_samples=2)
    settings = asked_filters(agreement=AgreementParams(model="bundle", **bounds))
    tallies: Tallies = {source: {} for source, _ in manifest.splits}
    manifest, tallies = leave_out_of_all(manifest, tallies, settings, root / "data" / "shards", ByName())
    save_tallies(manifest.folder, tallies)
    return manifest


def kept(manifest: Manifest, source: str, split: str = "train") -> list[list[str]]:
    return [row["captions"] for row in rows(manifest, source, split)]


def test_captions_below_the_bound_go_and_scores_stay_on_record(tmp_path: Path) -> None:
    write_source(tmp_path / "raw" / "photos", "train", [[30, 10], [5], [19, 20]])
    write_source(tmp_path / "raw" / "photos", "valid", [[1]])
    manifest = scored(tmp_path, min_score=0.2)
    assert kept(manifest, "photos") == [["20 30"], ["22 20"]]
    assert kept(manifest, "photos", "valid") == [["20 1"]]
    assert load_tallies(manifest.folder) == {"photos": {"train": {"agreement": Tally(1, 3)}}}
    first = first_examples(manifest.folder, "photos", "train")["agreement"]
    assert [(each.key, each.detail) for each in first][1] == ("photos-1", "cosine 0.050")
    assert models_asked(manifest.folder) == {"agreement": {"model": "bundle", "digest": "d1"}}
    table = pq.read_table(manifest.folder / "photos-train.agreement.parquet").to_pydict()
    assert table["caption_id"] == [0, 1, 10, 20, 21]
    np.testing.assert_allclose(table["score"], [0.3, 0.1, 0.05, 0.19, 0.2], rtol=1e-6)


def test_the_best_fraction_of_each_source_stays(tmp_path: Path) -> None:
    write_source(tmp_path / "raw" / "high", "train", [[90], [80], [70], [60]])
    write_source(tmp_path / "raw" / "low", "train", [[1], [2], [3], [4], [5]])
    manifest = scored(tmp_path, keep_fraction=0.5)
    assert kept(manifest, "high") == [["20 90"], ["21 80"]]
    assert kept(manifest, "low") == [["22 3"], ["23 4"], ["24 5"]]  # half of five, rounded up


def test_a_fraction_is_not_rounded_up_for_the_error_of_a_float(tmp_path: Path) -> None:
    write_source(tmp_path / "raw" / "photos", "train", [list(range(25))])
    manifest = scored(tmp_path, keep_fraction=0.28)  # 0.28 * 25 is 7.000000000000001
    assert kept(manifest, "photos") == [[f"20 {score}" for score in range(18, 25)]]


def test_a_bundle_scores_by_the_cosine_of_its_embeddings() -> None:
    images, texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    encoder = SimpleNamespace(
        digest="d",
        transform=lambda picture: torch.full((3, 1, 1), picture.width),
        encode_pixels=lambda pixels: images[pixels[:, 0, 0, 0]],
        encode_text=lambda _: texts,
    )
    scorer = EncoderScorer(encoder)  # type: ignore[arg-type]
    pictures = (Image.new("RGB", (width, 1)) for width in (0, 1))
    scores = scorer.scores(pictures, ["a", "b", "c"], np.array([0, 1, 1]))
    np.testing.assert_allclose(scores, [0.0, 0.6, 1.0], rtol=1e-6)


def test_a_model_that_is_not_there_stops_before_anything_is_packed(tmp_path: Path) -> None:
    write_source(tmp_path / "raw" / "photos", "train", [[1]])
    agreement = AgreementParams(model=str(tmp_path / "nowhere"), min_score=0.1)
    with pytest.raises(ZeroVLError, match=r"nowhere.*no such folder"):
        run_prepare(tmp_path, filters=asked_filters(agreement=agreement))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("values", [{"model": "m"}, {"min_score": 0.2}, {"keep_fraction": 0.5}])
def test_a_model_needs_a_bound_and_a_bound_a_model(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="name a model and set one of the two bounds"):
        AgreementParams(**values)
