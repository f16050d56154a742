"""Filters that look at all samples: which copy stays, what the shards hold then, and the counts."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.raw_sources import all_bytes, asked_filters, encoded, jpeg, picture, rows, run_prepare, write_csv
from zerovl.data import bucket_files
from zerovl.data.filtering import duplicates, near_pairs
from zerovl.data.filtering.left_out_tables import Tally, entries, first_examples, load_tallies
from zerovl.data.filtering.rewriting import SplitRewriter
from zerovl.data.manifest import Manifest, SplitInfo
from zerovl.data.shards import ShardReader, read_row
from zerovl.errors import ZeroVLError
from zerovl.files import sha256_file

Pictures = dict[int, tuple[bytes, list[str]]]  # by image id


def write_source(folder: Path, split: str, pictures: Pictures) -> None:
    (folder / split).mkdir(parents=True, exist_ok=True)
    table = []
    for number, (data, captions) in pictures.items():
        (folder / split / f"{number}.jpg").write_bytes(data)
        table += [(f"{number}.jpg", number, text, 10 * number + take) for take, text in enumerate(captions)]
    write_csv(folder / f"{split}_anno.csv", table)


def prepared(root: Path, **asked: Any) -> Manifest:
    return run_prepare(root, filters=asked_filters(**asked))


def kept_ids(manifest: Manifest, source: str, split: str = "train") -> list[int]:
    return [row["image_id"] for row in rows(manifest, source, split) if row["error"] is None]


def check_shards(root: Path, manifest: Manifest) -> None:
    """Index, table, shards and manifest.json tell the same."""
    reader = ShardReader(root / "data" / "shards")
    for (source, split), info in manifest.splits.items():
        good = [row for row in rows(manifest, source, split) if row["error"] is None]
        assert (info.pairs, info.captions) == (len(good), sum(len(row["captions"]) for row in good))
        assert len(manifest.index(source, split)) == info.pairs == sum(shard.samples for shard in info.shards)
        for number, row in enumerate(good):
            sample = read_row(manifest, reader, source, split, number)
            assert (sample.key, sample.captions, sample.caption_ids) == (
                *(row[name] for name in ("key", "captions", "caption_ids")),
            )
            assert row["shard"] == info.shards[int(manifest.index(source, split)[number]["shard"])].path
        assert [shard.path for shard in info.shards] == [
            f"{source}/{split}/{n:06d}.tar" for n in range(len(info.shards))
        ]
        for shard in info.shards:
            path = root / "data" / "shards" / shard.path
            assert (path.stat().st_size, sha256_file(path)) == (shard.bytes, shard.sha256)
    on_disk = {str(path.relative_to(root / "data" / "shards")) for path in (root / "data" / "shards").rglob("*.tar")}
    assert on_disk == {shard.path for info in manifest.splits.values() for shard in info.shards}
    assert not (root / "data" / "shards" / ".filters").exists()


def again(seed: int) -> bytes:
    """The picture of `jpeg(seed)` in other bytes."""
    return encoded(picture(seed), quality=70)


def write_copies(root: Path) -> None:
    """Two sources with copies within train, of a valid picture, across sources, and one that only looks alike."""
    train = {number: (jpeg(number), [f"picture {number}", "stock photo"]) for number in range(10)}
    train |= {10: (jpeg(3), ["a copy"]), 11: (again(5), ["looks like 5"]), 12: (jpeg(90), ["as in valid"])}
    train |= {13: (again(91), ["looks like valid"])}
    write_source(root / "raw" / "alpha", "train", train)
    write_source(root / "raw" / "beta", "train", {0: (jpeg(3), ["of alpha"]), 1: (jpeg(50), ["its own"])})
    write_source(root / "raw" / "beta", "valid", {90: (jpeg(90), ["a"]), 91: (jpeg(91), ["b"]), 92: (jpeg(90), ["c"])})


def test_train_loses_what_valid_has(tmp_path: Path) -> None:
    write_copies(tmp_path)
    manifest = prepared(tmp_path, leaks="exact")
    assert kept_ids(manifest, "alpha") == [*range(12), 13]
    assert kept_ids(manifest, "beta", "valid") == [90, 91, 92]
    check_shards(tmp_path, manifest)
    (entry,) = entries(manifest.folder, "alpha", "train")
    assert (entry.key, entry.reason, entry.detail) == ("alpha-12", "leaks", "same bytes as beta-90")
    assert entry.picture
    manifest = prepared(tmp_path, leaks="near")
    assert kept_ids(manifest, "alpha") == [*range(12)]
    found = list(entries(manifest.folder, "alpha", "train"))
    assert [each.key for each in found] == ["alpha-12", "alpha-13"]
    assert found[1].detail.endswith(" of the perceptual hash from beta-91")


def test_a_disk_too_full_for_what_is_compared_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_copies(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(ZeroVLError, match=r"shards: cannot write on \(No space left on device\), .* make room"):
        prepared(tmp_path, duplicates="near")
    assert not (tmp_path / "data" / "manifest" / "manifest.json").exists()
    assert not (tmp_path / "data" / "shards" / ".filters").exists()
    monkeypatch.undo()
    assert kept_ids(prepared(tmp_path, duplicates="near"), "alpha") == [*range(10)]


def test_the_first_of_copies_stays_and_valid_before_train(tmp_path: Path) -> None:
    write_copies(tmp_path)
    manifest = prepared(tmp_path, duplicates="exact")
    assert kept_ids(manifest, "alpha") == [*range(10), 11, 13]
    assert kept_ids(manifest, "beta") == [1]
    assert kept_ids(manifest, "beta", "valid") == [90, 91]
    check_shards(tmp_path, manifest)
    manifest = prepared(tmp_path, duplicates="near")
    assert kept_ids(manifest, "alpha") == [*range(10)]
    assert load_tallies(manifest.folder) == {
        "alpha": {"train": {"duplicates": Tally(4, 4)}},
        "beta": {"train": {"duplicates": Tally(1, 1)}, "valid": {"duplicates": Tally(1, 1)}},
    }
    check_shards(tmp_path, manifest)


def test_captions_that_too_many_pictures_have_go_from_the_shards_too(tmp_path: Path) -> None:
    write_copies(tmp_path)
    for bound in ({"max_caption_repeats": 9}, {"max_caption_share": 0.3}, {"max_caption_share": 1e-6}):
        manifest = prepared(tmp_path, min_side=1, **bound)
        assert [row["captions"] for row in rows(manifest, "alpha")][:2] == [["picture 0"], ["picture 1"]]
        (reason,) = bound
        assert load_tallies(manifest.folder) == {"alpha": {"train": {reason: Tally(0, 10)}}}
        detail = "10 times" if reason == "max_caption_repeats" else "38.46% of the training captions"
        assert first_examples(manifest.folder, "alpha", "train")[reason][0].detail == detail
        check_shards(tmp_path, manifest)
    assert kept_ids(prepared(tmp_path, max_caption_repeats=10), "alpha") == [*range(14)]


def test_a_picture_goes_with_its_last_caption_and_a_shard_with_its_last_picture(tmp_path: Path) -> None:
    pictures = {n: (jpeg(n), ["stock  Photo" if n < 6 else f"picture {n}"]) for n in range(12)}
    pictures[2] = (b"no picture", ["stock photo"])  # quarantined rows stay in the table
    write_source(tmp_path / "raw" / "photos", "train", pictures)
    manifest = prepared(tmp_path, max_caption_repeats=3)
    assert kept_ids(manifest, "photos") == [*range(6, 12)]
    info = manifest.splits["photos", "train"]
    assert (info.pairs, info.broken, len(info.shards)) == (6, 1, 2)
    assert load_tallies(manifest.folder)["photos"]["train"] == {"max_caption_repeats": Tally(5, 5)}
    check_shards(tmp_path, manifest)
    saved = json.loads((manifest.folder / "manifest.json").read_text())
    assert saved["sources"]["photos"]["train"]["pairs"] == 6


def test_what_samples_lost_before_stays_counted(tmp_path: Path) -> None:
    write_copies(tmp_path)
    manifest = prepared(tmp_path, duplicates="exact", min_caption_words=2)
    assert load_tallies(manifest.folder)["beta"]["valid"] == {"min_caption_words": Tally(3, 3)}
    assert {entry.reason for entry in entries(manifest.folder, "alpha", "train")} == {"duplicates"}


def test_buckets_and_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for bucket_rows in (1 << 17, 2):
        root = tmp_path / str(bucket_rows)
        write_copies(root)
        monkeypatch.setattr(bucket_files, "BUCKET_ROWS", bucket_rows)
        prepared(root, duplicates="near", leaks="near", max_caption_repeats=5)
        found.append(all_bytes(root / "data"))
    assert found[0] == found[1]


def test_a_run_that_ended_among_the_filters_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"duplicates": "near", "leaks": "near", "max_caption_repeats": 5}
    for name in ("whole", "broken"):
        write_copies(tmp_path / name)
    prepared(tmp_path / "whole", **asked)
    run, seen = SplitRewriter.run, list[str]()

    def stop_at_the_second(self: SplitRewriter) -> SplitInfo:
        seen.append(self.table.split)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return run(self)

    with monkeypatch.context() as patched:
        patched.setattr(SplitRewriter, "run", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path / "broken", **asked)
    assert not (tmp_path / "broken" / "data" / "manifest" / "manifest.json").exists()
    prepared(tmp_path / "broken", **asked)
    assert all_bytes(tmp_path / "broken" / "data") == all_bytes(tmp_path / "whole" / "data")


def test_no_two_near_pictures_stay_and_each_lost_one_is_near_one_that_stays(tmp_path: Path) -> None:
    """Chains too: of three in a row the middle one goes and the last one stays."""
    grey = [Image.fromarray(np.tile(np.linspace(0, 255, 64), (64, 1)).astype(np.uint8)) for _ in range(12)]
    for number, image in enumerate(grey):
        image.paste(255, (0, 0, 64, 5 * number))  # a white border that grows from the top
    write_source(
        tmp_path / "raw" / "greys",
        "train",
        {number: (encoded(image.convert("RGB")), [f"grey {number}"]) for number, image in enumerate(grey)},
    )
    hashes = {row["image_id"]: row["phash"] for row in rows(prepared(tmp_path), "greys")}
    kept = kept_ids(prepared(tmp_path, duplicates="near", near_distance=8), "greys")
    expected: list[int] = []
    for number, own in hashes.items():  # the slow reference
        if all((own ^ hashes[other]).bit_count() > 8 for other in expected):
            expected.append(number)
    assert kept == expected
    assert 1 < len(kept) < 12


def test_chains_of_near_pairs_are_resolved_from_the_first() -> None:
    hashes = np.array([0, 1, 3, 7, 1 << 40 | 1 << 50], np.uint64)
    pairs = near_pairs.near_pairs(hashes, 1)
    assert pairs.tolist() == [[0, 1], [1, 2], [2, 3]]

    class Noted:
        def leave_out(self, reason: str, numbers: Any, twins: Any, apart: Any) -> None:
            self.found = (numbers.tolist(), twins.tolist(), apart.tolist())

    noted = Noted()
    duplicates._keep_first(pairs, hashes, noted)  # type: ignore[arg-type]
    assert noted.found == ([1, 3], [0, 2], [1, 1])
