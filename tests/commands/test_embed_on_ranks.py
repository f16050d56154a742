"""`zerovl embed` on two ranks, with broken files and an interruption: the file that one rank writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.support.fake_world import FakeEncoder, png
from zerovl import cli, gpu_leases, own_gpus
from zerovl.indexing import pairs_table, ranks, update
from zerovl.indexing.pairs_target import PairsTarget

PICTURES, PART = 11, 2


class Interrupted(FakeEncoder):
    """Ctrl-C comes when it has embedded a part."""

    def encode_pixels(self, images: torch.Tensor) -> torch.Tensor:
        if self.encoded_pictures:
            raise KeyboardInterrupt
        return super().encode_pixels(images)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of one colour each, two of them broken, and a CSV with two captions for each and broken rows."""
    for module in (pairs_table, ranks, update):
        monkeypatch.setattr(module, "PART", PART)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rows = ["image,image_id,caption,caption_id"]
    for number in range(PICTURES):
        data = b"no picture" if number in (4, 7) else png((20 * number, 60, 60))
        (pictures / f"{number:02}.png").write_bytes(data)
        rows += [f"{number:02}.png,{number},colour {20 * number} {words},{number}" for words in ("60 60", "0 0")]
    rows += ["gone.png,1,words,1", "00.png,zero,words,1", "00.png,0,,1"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def in_this_process(*encoders: FakeEncoder) -> Callable[..., None]:
    """Stand for `make_shares`: the ranks one after the other."""

    def make_shares(parts: Path, listing: Any, _load: object, _model: str, count: int) -> None:
        assert count == len(encoders)
        for rank, encoder in enumerate(encoders):
            ranks.make_share(parts, listing, encoder, rank, count)  # type: ignore[arg-type]

    return make_shares


def left_out_of(path: Path) -> str:
    """The list of what was left out."""
    return PairsTarget(path).left_out.read_text()


def assert_same_file(found: Path, expected: Path) -> None:
    """Compare all that two files hold, to the last bit."""
    if found.suffix == ".npz":
        ours, theirs = np.load(found), np.load(expected)
        assert list(ours) == list(theirs)
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], strict=True)
    else:
        table, other = pq.read_table(found), pq.read_table(expected)
        assert table.equals(other)
        assert table.schema.metadata == other.schema.metadata


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "pictures"])
def test_the_same_keys_and_rows_as_on_one_rank(
    encoder: FakeEncoder, folder: Path, pairs: bool, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = folder / f"alone{suffix}", folder / f"together{suffix}"
    asked = ["--pairs", str(folder / "pairs.csv")] if pairs else []
    words = ["embed", "model", *asked, "--images", str(folder / "pictures"), "--out"]
    assert cli.main([*words, str(alone)]) == 0
    assert encoder.encoded_pictures == PICTURES - 2

    first, second = FakeEncoder(), Interrupted()
    monkeypatch.setattr(ranks, "make_shares", in_this_process(first, second))
    assert cli.main([*words, str(together), "--ranks", "2"]) == 130
    assert not together.exists()
    begun = first.encoded_pictures, second.encoded_pictures
    assert sum(begun) < PICTURES - 2

    again = FakeEncoder(), FakeEncoder()
    monkeypatch.setattr(ranks, "make_shares", in_this_process(*again))
    assert cli.main([*words, str(together), "--ranks", "2"]) == 0
    assert again[0].encoded_pictures == 0  # its share was there
    assert sum(begun) + again[1].encoded_pictures == PICTURES - 2  # each picture once, on both runs together
    assert encoder.encoded_pictures == PICTURES - 2  # nothing was left for the process that puts them together
    assert_same_file(together, alone)
    assert left_out_of(together) == left_out_of(alone)
    assert left_out_of(alone).count("not a picture") == (4 if pairs else 2)
    assert not PairsTarget(together).parts.exists()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "pictures"])
def test_without_a_number_each_free_gpu_has_a_rank(
    encoder: FakeEncoder, folder: Path, pairs: bool, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"GPUS": "GPU-a,GPU-b,GPU-c,GPU-d", "DEVICE": "auto", "LEASE": str(folder / "leases")}.items():
        monkeypatch.setenv(f"ZEROVL_{name}", value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr(own_gpus, "_held", [])
    other = gpu_leases.take(1, ["GPU-a"], "run other", print)
    monkeypatch.setattr(ranks, "make_shares", in_this_process(FakeEncoder(), FakeEncoder()))
    asked = ["--pairs", str(folder / "pairs.csv")] if pairs else []
    words = ["embed", "model", *asked, "--images", str(folder / "pictures"), "--out", str(folder / f"out{suffix}")]
    assert cli.main(words) == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-c"
    assert encoder.encoded_pictures == 0  # all of them by the ranks
    for held in (other, *own_gpus._held):
        held.release()
