"""Stored features in the place of pixels and tokens: the same pairs with the same draws, and no shard is opened."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.support.loader_batches import BATCH, SIZES, batches_of
from tests.support.shard_fixture import WordTokenizer, Written, write
from zerovl.data.batches.features import StoredFeatures, captions_of, features_path, lay_out, write_rows
from zerovl.data.shards import ShardReader
from zerovl.params import AugmentParams

STILL = AugmentParams(mask_probability=0.0)
WIDTH = 3


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path / "data", SIZES)


@pytest.fixture
def stored(written: Written, tmp_path: Path) -> tuple[StoredFeatures, StoredFeatures]:
    """Feature number i of a source is i in all its places."""
    folders = []
    for name, of_captions in (("image", False), ("text", True)):
        folder = tmp_path / name
        folder.mkdir()
        for source in SIZES:
            lay_out(folder, written.manifest, source, WIDTH, of_captions)
            count = len(np.load(features_path(folder, source)))
            for start in (5, 0):
                end = count if start else 5
                write_rows(
                    folder, source, start, np.repeat(np.arange(start, end, dtype=np.float32), WIDTH).reshape(-1, 3)
                )
        folders.append(folder)
    image, text = (pickle.loads(pickle.dumps(StoredFeatures(folder))) for folder in folders)
    return image, text


def test_the_pairs_and_captions_are_those_of_the_shards(
    written: Written, stored: tuple[StoredFeatures, StoredFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    with batches_of(written, augment=STILL) as batches:
        expected = [step.micro_batches for step in batches]
    captions = {source: list(captions_of(written.manifest, source)) for source in SIZES}
    monkeypatch.setattr(ShardReader, "read", None)
    with batches_of(written, augment=STILL, stored_images=stored[0], stored_captions=stored[1]) as batches:
        found = [step.micro_batches for step in batches]
    assert len(found) == len(expected)
    for step, own in zip(expected, found, strict=True):
        assert sum(len(micro.images) for micro in own) == BATCH
        for shard, micro in zip(step, own, strict=True):
            assert micro.keys == shard.keys
            flat = [caption for of_pair in captions[micro.source] for caption in of_pair]
            chosen = [flat[int(feature[0])] for feature in micro.input_ids]
            assert (WordTokenizer()(chosen)[0] == shard.input_ids.numpy()).all()
            assert micro.attention_mask.shape == (len(chosen), 0)
            rows = [int(feature[0]) for feature in micro.images]
            assert [stored[0].key(micro.source, row) for row in rows] == micro.keys


def test_one_stored_side_leaves_the_other_as_it_is(
    written: Written, stored: tuple[StoredFeatures, StoredFeatures]
) -> None:
    with batches_of(written) as batches:
        whole = next(batches).micro_batches[0]
    with batches_of(written, stored_images=stored[0]) as batches:
        image = next(batches).micro_batches[0]
    with batches_of(written, stored_captions=stored[1]) as batches:
        text = next(batches).micro_batches[0]
    assert image.keys == text.keys == whole.keys
    assert (image.input_ids == whole.input_ids).all()
    assert image.images.shape == (4, WIDTH)
    assert (text.images == whole.images).all()
    assert text.input_ids.shape == (4, WIDTH)
