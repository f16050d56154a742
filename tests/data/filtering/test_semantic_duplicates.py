"""Pictures that a model sees as nearly the same: clusters, what is compared within one, and what training loses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.raw_sources import all_bytes, asked_filters, encoded, jpeg, picture, rows, run_prepare, write_csv
from zerovl.data.filtering import embedding_clusters, embedding_copies
from zerovl.data.filtering.dataset_filters import leave_out_of_all
from zerovl.data.filtering.embedding_clusters import clusters, unit_rows
from zerovl.data.filtering.embedding_copies import find_copies
from zerovl.data.filtering.filter_models import models_asked
from zerovl.data.filtering.left_out_tables import Tallies, Tally, entries, load_tallies, save_tallies
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError
from zerovl.model.picture_embeddings import EncoderEmbedder
from zerovl.params import SemanticDuplicatesParams


def drawn_embeddings(pictures: int, copies: int, width: int = 16) -> Any:
    """Random directions in float16, the last `copies` of them slightly moved ones of the first."""
    generator = np.random.default_rng(7)
    made = generator.standard_normal((pictures, width))
    twins = generator.integers(0, pictures - copies, copies)
    made[pictures - copies :] = made[twins] + 0.02 * generator.standard_normal((copies, width))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


def all_pairs(embeddings: Any, places: Any, max_cosine: float) -> dict[int, int]:
    """The slow reference: each picture is compared with each earlier one that stays; copy -> the nearest of them."""
    stay: list[int] = []
    found: dict[int, int] = {}
    for place in places.tolist():
        own = unit_rows(embeddings, np.array([place]))[0].astype(np.float64)
        cosines = [float(own @ unit_rows(embeddings, np.array([other]))[0]) for other in stay]
        if cosines and max(cosines) > max_cosine:
            found[place] = stay[int(np.argmax(cosines))]
        else:
            stay.append(place)
    return found


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_blocks_find_what_comparing_all_pairs_finds(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(embedding_copies, "_BLOCK", block)
    embeddings = drawn_embeddings(90, 30)
    cluster = np.flatnonzero(np.arange(90) % 9)
    for max_cosine in (0.5, 0.98):
        expected = all_pairs(embeddings, cluster, max_cosine)
        found = find_copies(embeddings, cluster, max_cosine)
        assert dict(zip(found.places.tolist(), found.twins.tolist(), strict=True)) == expected
        assert len(expected) > 10
        cosines = np.einsum("nd,nd->n", unit_rows(embeddings, found.places), unit_rows(embeddings, found.twins))
        np.testing.assert_allclose(found.cosines, cosines, atol=1e-6)


def test_clusters_are_bounded_hold_all_and_follow_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_clusters, "_CHUNK", 100)
    embeddings, places = drawn_embeddings(1000, 300), np.arange(20, 1000)
    made = list(clusters(embeddings, places, 60, seed=1))
    assert max(map(len, made)) <= 60
    assert len(made) < 100
    np.testing.assert_array_equal(np.sort(np.concatenate(made)), places)
    assert all((np.diff(cluster) > 0).all() for cluster in made)
    again, other = (list(clusters(embeddings, places, 60, seed=seed)) for seed in (1, 2))
    assert [each.tolist() for each in again] == [each.tolist() for each in made]
    assert [each.tolist() for each in other] != [each.tolist() for each in made]
    copies = sum(len(find_copies(embeddings, cluster, 0.98).places) for cluster in made)
    assert copies >= 0.9 * len(find_copies(embeddings, places, 0.98).places)


def test_copies_of_one_picture_beyond_any_bound_are_one_cluster_and_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_copies, "_BLOCK", 16)
    embeddings = np.tile(drawn_embeddings(1, 0), (200, 1))
    (cluster,) = clusters(embeddings, np.arange(200), 50, seed=0)
    found = find_copies(embeddings, cluster, 0.99)
    assert found.places.tolist() == [*range(1, 200)]
    assert set(found.twins.tolist()) == {0}
    assert list(clusters(embeddings, np.arange(0), 50, seed=0)) == []


class ByColours:
    """Embeds a picture by the colours of its sixteen fields."""

    digest, width = "d1", 48

    def embeddings(self, pictures: Iterable[Image.Image]) -> Any:
        fields = [np.asarray(each.resize((4, 4), Image.Resampling.BOX), np.float32).ravel() - 127 for each in pictures]
        return np.stack([each / np.linalg.norm(each) for each in fields])


class Broken(ByColours):
    def embeddings(self, pictures: Iterable[Image.Image]) -> Any:
        return super().embeddings(pictures) * np.nan


def write_source(folder: Path, split: str, pictures: list[bytes]) -> None:
    (folder / split).mkdir(parents=True)
    for number, data in enumerate(pictures):
        (folder / split / f"{number}.jpg").write_bytes(data)
    write_csv(folder / f"{split}_anno.csv", [(f"{n}.jpg", n, f"picture {n}", n) for n in range(len(pictures))])


def write_copies(root: Path) -> None:
    """In alpha 0 and 2 are alike and 1 is as in valid, in beta 0 is alike to 1 of alpha."""
    bright = encoded(picture(0).point(lambda value: min(255, value + 8)))
    write_source(root / "raw" / "alpha", "train", [jpeg(0), jpeg(1), bright])
    write_source(root / "raw" / "beta", "train", [encoded(picture(1), quality=60), jpeg(3)])
    write_source(root / "raw" / "beta", "valid", [jpeg(1), jpeg(1, (60, 50))])


def filtered(root: Path, **settings: Any) -> Manifest:
    manifest = run_prepare(root, shard_samples=2)
    chosen = SemanticDuplicatesParams(model="bundle", max_cosine=0.97, **settings)
    tallies: Tallies = {source: {} for source, _ in manifest.splits}
    settings, shards = asked_filters(semantic_duplicates=chosen), root / "data" / "shards"
    manifest, tallies = leave_out_of_all(manifest, tallies, settings, shards, embedder=ByColours())
    save_tallies(manifest.folder, tallies)
    return manifest


def kept_ids(manifest: Manifest, source: str, split: str = "train") -> list[int]:
    return [row["image_id"] for row in rows(manifest, source, split)]


def test_training_loses_the_later_of_alike_pictures_and_valid_none(tmp_path: Path) -> None:
    write_copies(tmp_path)
    manifest = filtered(tmp_path)
    assert kept_ids(manifest, "alpha") == [0, 1]
    assert kept_ids(manifest, "beta") == [1]
    assert kept_ids(manifest, "beta", "valid") == [0, 1]
    counted = {"train": {"semantic_duplicates": Tally(1, 1)}}
    assert load_tallies(manifest.folder) == {"alpha": counted, "beta": counted}
    (entry,) = entries(manifest.folder, "beta", "train")
    assert (entry.key, entry.whole, entry.captions) == ("beta-0", True, ("picture 0",))
    assert entry.detail == "cosine 1.000 with alpha-1"
    assert entry.picture
    assert models_asked(manifest.folder) == {"semantic_duplicates": {"model": "bundle", "digest": "d1"}}
    first = all_bytes(tmp_path / "data")
    filtered(tmp_path)
    assert all_bytes(tmp_path / "data") == first


def test_sources_can_be_compared_each_by_itself(tmp_path: Path) -> None:
    write_copies(tmp_path)
    manifest = filtered(tmp_path, compared="source")
    assert kept_ids(manifest, "alpha") == [0, 1]
    assert kept_ids(manifest, "beta") == [0, 1]


def test_embeddings_that_are_not_finite_are_refused_with_the_picture(tmp_path: Path) -> None:
    write_copies(tmp_path)
    manifest = run_prepare(tmp_path)
    settings = asked_filters(semantic_duplicates=SemanticDuplicatesParams(model="bundle", max_cosine=0.9))
    with pytest.raises(ZeroVLError, match=r"alpha-0: .*semantic_duplicates gives an embedding that is not finite"):
        leave_out_of_all(manifest, {}, settings, tmp_path / "data" / "shards", embedder=Broken())
    assert not (tmp_path / "data" / "shards" / ".filters").exists()


def test_a_bundle_embeds_pictures_one_after_the_other() -> None:
    encoder = SimpleNamespace(
        digest="d",
        model=SimpleNamespace(architecture=SimpleNamespace(embed_dim=2)),
        transform=lambda picture: torch.full((3, 1, 1), picture.width),
        encode_pixels=lambda pixels: pixels[:, :2, 0, 0].float(),
    )
    embedder = EncoderEmbedder(encoder)  # type: ignore[arg-type]
    made = embedder.embeddings(Image.new("RGB", (width, 1)) for width in (3, 5))
    np.testing.assert_array_equal(made, [[3, 3], [5, 5]])
    assert (embedder.digest, embedder.width) == ("d", 2)


@pytest.mark.parametrize("values", [{"model": "m"}, {"max_cosine": 0.9}])
def test_a_model_needs_a_bound_and_a_bound_a_model(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="name a model and set max_cosine below 1, or neither"):
        SemanticDuplicatesParams(**values)


def test_a_model_that_is_not_there_stops_before_anything_is_packed(tmp_path: Path) -> None:
    write_copies(tmp_path)
    chosen = SemanticDuplicatesParams(model=str(tmp_path / "nowhere"), max_cosine=0.9)
    with pytest.raises(ZeroVLError, match=r"nowhere.*no such folder"):
        run_prepare(tmp_path, filters=asked_filters(semantic_duplicates=chosen))
    assert not (tmp_path / "data").exists()
