"""A valid split drawn for a source without one: by picture, the same ones whatever else there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.filtering.test_dataset_filters import check_shards, kept_ids
from tests.support.raw_sources import jpeg, run_prepare, run_sources, write_csv, write_zerovl
from zerovl.data.filtering import drawn_valid
from zerovl.data.filtering.drawn_valid import drawn_pictures, smallest_of_group
from zerovl.data.filtering.rewriting import Row, stored_sample
from zerovl.data.manifest import Manifest, ShardInfo
from zerovl.data.shards import Sample, ShardReader
from zerovl.data.validation.page import _drawn
from zerovl.errors import ZeroVLError
from zerovl.params import DrawValidParams


def prepared(root: Path, **settings: Any) -> Manifest:
    return run_prepare(root, draw_valid=DrawValidParams(**settings))


def test_drawn_pictures_move_with_all_their_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_zerovl(tmp_path / "raw" / "photos", "train", 30)
    (tmp_path / "raw" / "photos" / "train" / "7.jpg").write_bytes(b"no picture")
    write_zerovl(tmp_path / "raw" / "whole", "train", 5)
    write_zerovl(tmp_path / "raw" / "whole", "valid", 5, first=50)
    manifest = prepared(tmp_path, fraction=0.3)
    check_shards(tmp_path, manifest)
    train, valid = kept_ids(manifest, "photos"), kept_ids(manifest, "photos", "valid")
    assert sorted(train + valid) == [number for number in range(30) if number != 7]
    assert 3 < len(valid) < 16
    assert manifest.splits["photos", "train"].broken == 1
    assert manifest.splits["photos", "valid"].captions == 2 * len(valid)
    assert (kept_ids(manifest, "whole"), kept_ids(manifest, "whole", "valid")) == ([*range(5)], [*range(50, 55)])
    assert f"photos/valid: {len(valid)} pictures drawn from train" in capsys.readouterr().out
    assert json.loads((manifest.folder / "drawn_valid.json").read_text()) == {"photos": len(valid)}
    assert f"photos ({len(valid)})" in _drawn({"photos": len(valid)})

    write_zerovl(tmp_path / "raw" / "photos", "train", 45)
    more = prepared(tmp_path, fraction=0.3)
    assert [number for number in kept_ids(more, "photos", "valid") if number < 30 and number != 7] == valid
    assert set(train) < set(kept_ids(more, "photos"))


def test_shards_that_lose_nothing_are_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zerovl(tmp_path / "raw" / "photos", "train", 40)
    (tmp_path / "raw" / "photos" / "train" / "9.jpg").write_bytes(b"no picture")
    read = set[str]()

    def noting(row: Row, reader: ShardReader) -> Sample:
        read.add(row["shard"])
        return stored_sample(row, reader)

    monkeypatch.setattr(drawn_valid, "stored_sample", noting)
    manifest = prepared(tmp_path, fraction=0.1)
    check_shards(tmp_path, manifest)
    drawn = kept_ids(manifest, "photos", "valid")
    assert read == {f"photos/train/{number // 4:06d}.tar" for number in drawn}  # four records a shard
    assert 0 < len(read) < 10
    assert sorted(drawn + kept_ids(manifest, "photos")) == [number for number in range(40) if number != 9]
    info = manifest.splits["photos", "train"]
    assert (info.broken, info.captions) == (1, 2 * info.pairs)
    assert [shard.path for shard in info.shards] == [f"photos/train/{n:06d}.tar" for n in range(len(info.shards))]
    monkeypatch.setattr(drawn_valid._Part, "keep", rewrite)
    assert prepared(tmp_path, fraction=0.1).digest == manifest.digest


def rewrite(self: Any, add: Any, shard: ShardInfo, good: list[Row], broken: list[Row]) -> None:
    """The plain way: each sample read, and written again."""
    reader = ShardReader(self.shards)
    self.pending = [(row, stored_sample(row, reader)) for row in good]
    reader.close()
    (self.shards / shard.path).unlink()
    self.flush(add, broken, shard.tar)


def test_what_looks_alike_goes_together_and_the_share_is_met() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 1 << 63, 2000, dtype=np.uint64)
    hashes = np.concatenate([first, first ^ np.uint64(1), first ^ np.uint64(7), first])  # 0, 1 and 3 bits away
    drawn = drawn_pictures(hashes, DrawValidParams(fraction=0.1)).reshape(4, -1)
    assert (drawn == drawn[0]).all()
    assert 0.08 < drawn[0].mean() < 0.12
    other = drawn_pictures(hashes, DrawValidParams(fraction=0.1, seed=1)).reshape(4, -1)
    assert (other[0] != drawn[0]).any()


def test_groups_are_those_that_pairs_connect() -> None:
    pairs = np.array([[0, 5], [1, 2], [2, 3], [4, 5]])
    assert smallest_of_group(7, pairs).tolist() == [0, 1, 1, 1, 0, 0, 6]
    chain = np.stack([np.arange(99), np.arange(1, 100)], axis=1)[::-1]
    assert not smallest_of_group(100, chain).any()


def test_a_source_that_wants_no_valid_split_keeps_all(tmp_path: Path) -> None:
    write_zerovl(tmp_path / "photos", "train", 9)
    source = {"name": "photos", "path": "photos", "splits": ["train"]}
    manifest = run_sources(tmp_path, source, draw_valid=DrawValidParams(fraction=0.5))
    assert list(manifest.splits) == [("photos", "train")]


def test_a_share_that_draws_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw" / "one" / "train").mkdir(parents=True)
    (tmp_path / "raw" / "one" / "train" / "0.jpg").write_bytes(jpeg(0))
    write_csv(tmp_path / "raw" / "one" / "train_anno.csv", [("0.jpg", 0, "a", 0)])
    with pytest.raises(ZeroVLError, match="of the 1 pictures of one none would be drawn"):
        prepared(tmp_path, fraction=1e-9)
