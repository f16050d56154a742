"""`zerovl embed` on two ranks, with broken files and an interruption: the file that one rank writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.support.fake_world import FakeEncoder, png
from zerovl import cli, gpu_leases, own_gpus
from zerovl.commands import embed
from zerovl.indexing import pairs_table, ranks, update

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


def table_of(path: Path) -> tuple[pa.Table, str]:
    """The rows of a file and the list of what was left out."""
    return pq.read_table(path), embed.broken_file(path).read_text()


@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "pictures"])
def test_the_same_keys_and_rows_as_on_one_rank(
    encoder: FakeEncoder, folder: Path, pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = folder / "alone.parquet", folder / "together.parquet"
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
    (found, left_out), (expected, of_one) = table_of(together), table_of(alone)
    assert found.equals(expected)
    assert found.schema.metadata == expected.schema.metadata
    assert left_out == of_one
    assert left_out.count("not a picture") == (4 if pairs else 2)
    assert not together.with_name("together.parquet.parts").exists()


@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "pictures"])
def test_without_a_number_each_free_gpu_has_a_rank(
    encoder: FakeEncoder, folder: Path, pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"GPUS": "GPU-a,GPU-b,GPU-c,GPU-d", "DEVICE": "auto", "LEASE": str(folder / "leases")}.items():
        monkeypatch.setenv(f"ZEROVL_{name}", value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr(own_gpus, "_held", [])
    other = gpu_leases.take(1, ["GPU-a"], "run other", print)
    monkeypatch.setattr(ranks, "make_shares", in_this_process(FakeEncoder(), FakeEncoder()))
    asked = ["--pairs", str(folder / "pairs.csv")] if pairs else []
    words = ["embed", "model", *asked, "--images", str(folder / "pictures"), "--out", str(folder / "out.parquet")]
    assert cli.main(words) == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-c"
    assert encoder.encoded_pictures == 0  # all of them by the ranks
    for held in (other, *own_gpus._held):
        held.release()
