"""An index is what embedding everything again would give, whatever came, went, changed or was interrupted before."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.embeddings import assert_same_embeddings
from tests.support.fake_world import FakeEncoder, make_picture_folder, png
from tests.support.raw_sources import write_tar
from zerovl.errors import ZeroVLError
from zerovl.indexing import index as indexes
from zerovl.indexing import update as updating
from zerovl.indexing.index import BROKEN, FILE, PARTS, Index
from zerovl.indexing.listing import listing_of
from zerovl.indexing.ranks import make_share, make_shares
from zerovl.indexing.update import Updated


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "PART", 3)
    monkeypatch.setattr("zerovl.indexing.ranks.PART", 3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures and a broken one, and four more in a tar."""
    folder = make_picture_folder(tmp_path / "pictures")
    members = [(f"{number:03d}.png", png((60 * number, 10, 100))) for number in range(4)]
    write_tar(folder / "more" / "0.tar", [*members, ("001.txt", b"a caption"), ("004.png", b"no picture")])
    return folder


def update(index: Path, pictures: Path, encoder: FakeEncoder | None = None, dtype: str | None = None) -> Updated:
    encoder = encoder or FakeEncoder()
    return updating.update(index, listing_of(pictures, None), encoder, "demo@1", dtype)  # type: ignore[arg-type]


def contents(index: Path) -> tuple[list[str], torch.Tensor]:
    opened = Index(index)
    keys = [one.key for one in opened.pictures(range(len(opened)))]
    return keys, torch.from_numpy(np.array(opened.embeddings, np.float32))


def assert_as_new(index: Path, pictures: Path) -> None:
    fresh = index.with_name(f"{index.name}-fresh")
    update(fresh, pictures)
    (keys, embeddings), (expected_keys, expected) = contents(index), contents(fresh)
    assert keys == expected_keys
    assert_same_embeddings(embeddings, expected)
    assert not (index / PARTS).exists()


def test_pictures_of_folders_and_tars_are_in_the_order_of_their_names(pictures: Path, tmp_path: Path) -> None:
    done = update(tmp_path / "index", pictures)
    keys, embeddings = contents(tmp_path / "index")
    tar = [f"more/0.tar:{number:03d}.png" for number in range(4)]
    assert keys == ["blue.png", *tar, "more/green.PNG", "red.png"]
    assert (done.new, done.kept, done.gone) == (7, 0, 0)
    assert dict(done.reasons) == {"not a picture": 2}
    listed = (tmp_path / "index" / BROKEN).read_text().splitlines()
    assert listed == ["picture,reason", "broken.jpg,not a picture", "more/0.tar:004.png,not a picture"]
    assert_same_embeddings(embeddings[[0, 3]], FakeEncoder().encode_text(["colour 0 0 250", "colour 120 10 100"]))


def test_what_is_new_is_embedded_and_what_is_gone_leaves(pictures: Path, tmp_path: Path) -> None:
    index, encoder = tmp_path / "index", FakeEncoder()
    update(index, pictures)
    (pictures / "red.png").unlink()
    (pictures / "blue.png").write_bytes(png((1, 2, 3)))
    os.utime(pictures / "blue.png", ns=(1, 1))
    (pictures / "a.png").write_bytes(png((90, 90, 90)))
    done = update(index, pictures, encoder)
    assert encoder.encoded_pictures == done.new == 2
    assert (done.kept, done.gone) == (5, 2)
    assert_as_new(index, pictures)
    assert len(list(index.glob("embeddings-*"))) == 1
    done = update(index, pictures)
    assert (done.new, done.kept, done.gone) == (0, 7, 0)


class Interrupted(FakeEncoder):
    """Is stopped when it has embedded some pictures."""

    left = 4

    def encode_pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Embed pixels, for a while."""
        if self.left < len(images):
            raise KeyboardInterrupt
        self.left -= len(images)
        return super().encode_pixels(images)


@pytest.mark.parametrize("there", [False, True], ids=["new", "update"])
def test_an_interrupted_run_goes_on(pictures: Path, tmp_path: Path, there: bool) -> None:
    index, encoder = tmp_path / "index", FakeEncoder()
    if there:
        update(index, pictures)
        for path in pictures.rglob("*.*"):
            os.utime(path, ns=(1, 1))
    with pytest.raises(KeyboardInterrupt):
        update(index, pictures, Interrupted())
    assert (index / FILE).exists() == there
    if there:
        assert len(Index(index)) == 7  # as it was
    else:
        with pytest.raises(ZeroVLError, match=r"index: not an index .*interrupted; run `zerovl index` again"):
            Index(index)
    assert update(index, pictures, encoder).new == 7
    assert encoder.encoded_pictures == 5  # of seven, the first part has two
    assert_as_new(index, pictures)


def test_the_shares_of_ranks_make_the_same_index(pictures: Path, tmp_path: Path) -> None:
    index, encoder = tmp_path / "index", FakeEncoder()
    shares = [FakeEncoder(), FakeEncoder()]
    listing = listing_of(pictures, None)

    def prefill() -> None:
        for rank, share in enumerate(shares):
            make_share(index, listing, share, rank, 2)  # type: ignore[arg-type]

    updating.update(index, listing, encoder, "demo@1", prefill=prefill)  # type: ignore[arg-type]
    assert encoder.encoded_pictures == 0
    assert [share.encoded_pictures for share in shares] == [4, 3]  # parts of three: the first and the third
    fresh = tmp_path / "fresh"
    update(fresh, pictures)
    (_, found), (_, expected) = contents(index), contents(fresh)
    assert torch.equal(found, expected)


def test_a_share_of_another_model_is_refused(pictures: Path, tmp_path: Path) -> None:
    index, listing, other = tmp_path / "index", listing_of(pictures, None), FakeEncoder(seed=1)

    def prefill() -> None:
        make_share(index, listing, other, 0, 2)  # type: ignore[arg-type]

    with pytest.raises(ZeroVLError, match=r"begun with model seed 0, blin, and what was loaded now is seed 1, blin"):
        updating.update(index, listing, FakeEncoder(), "demo@production", prefill=prefill)  # type: ignore[arg-type]
    assert other.encoded_pictures == 0


def load_fake(reference: str, *, device: str = "auto") -> FakeEncoder:
    """Load as `zerovl.load` does, in a process that has imported this module."""
    return FakeEncoder()


def test_ranks_are_processes(pictures: Path, tmp_path: Path) -> None:
    index, encoder, listing = tmp_path / "index", FakeEncoder(), listing_of(pictures, None)

    def prefill() -> None:
        make_shares(index, listing, load_fake, "demo@1", 2)  # type: ignore[arg-type]

    done = updating.update(index, listing, encoder, "demo@1", prefill=prefill)  # type: ignore[arg-type]
    assert (encoder.encoded_pictures, done.new) == (0, 7)
    assert_as_new(index, pictures)


def test_half_the_size(pictures: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    update(index, pictures, dtype="float16")
    assert Index(index).embeddings.dtype == np.float16
    (pictures / "a.png").write_bytes(png((90, 90, 90)))
    update(index, pictures)  # stays what it is
    assert Index(index).embeddings.dtype == np.float16
    fresh = tmp_path / "fresh"
    update(fresh, pictures)
    torch.testing.assert_close(contents(index)[1], contents(fresh)[1], rtol=0, atol=5e-4)
    with pytest.raises(ZeroVLError, match="holds float16, not float32"):
        update(index, pictures, dtype="float32")


def test_what_does_not_fit_is_refused(pictures: Path, tmp_path: Path) -> None:
    index, other = tmp_path / "index", make_picture_folder(tmp_path / "other")
    update(index, pictures)
    with pytest.raises(ZeroVLError, match=r"made with demo@1 \(seed 0, blin\), and the model is demo@1 \(seed 1, blin"):
        update(index, pictures, FakeEncoder(seed=1))
    with pytest.raises(ZeroVLError, match=r"holds the pictures of .*pictures, not of .*other"):
        update(index, other)
    pictures.rename(tmp_path / "moved")
    encoder = FakeEncoder()
    assert update(index, tmp_path / "moved", encoder).kept == 7  # a folder that was moved is the same one
    with pytest.raises(ZeroVLError, match=r"not an index, and 'blue.png' is in it"):
        update(other, tmp_path / "moved")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    with pytest.raises(ZeroVLError, match=r"none of its pictures can be embedded; 1 empty file; first a\.png$"):
        update(tmp_path / "none", tmp_path / "bad")
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZeroVLError, match="none of its pictures"):
        update(tmp_path / "empty", tmp_path / "bad")
    assert not list((tmp_path / "empty").iterdir())  # but the folder was there before
    with pytest.raises(ZeroVLError, match="cannot be made"):
        update(tmp_path / "bad" / "a.png", tmp_path / "bad")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (FILE, b"{", "not valid JSON"),
        (FILE, b'{"version": 9}', "version 9, this code reads 1"),
        (FILE, b'{"version": 1}', "damaged"),
        ("embeddings-1.npy", b"x", "damaged"),
        ("pictures-1.parquet", b"x", "damaged"),
    ],
)
def test_damage_is_named(pictures: Path, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    index = tmp_path / "index"
    update(index, pictures)
    (index / name).write_bytes(content)
    with pytest.raises(ZeroVLError, match=message):
        Index(index)


def test_other_files_of_a_folder_are_left_alone(pictures: Path, tmp_path: Path) -> None:
    index, foreign = tmp_path / "index", ("pictures-2023.tar", "embeddings-old.npy", "broken.csv.orig")
    own = (".pictures-1.parquet.77.part", ".broken.csv.77.part", "identities-0.npy")
    index.mkdir()
    (index / foreign[0]).write_text("mine")
    with pytest.raises(ZeroVLError, match=r"not an index, and 'pictures-2023.tar' is in it"):
        update(index, pictures)
    (index / foreign[0]).unlink()
    for name in own:  # of a run that was killed
        (index / name).write_text("cut off")
    update(index, pictures)
    assert not any((index / name).exists() for name in own)
    for name in foreign:
        (index / name).write_text("mine")
    update(index, pictures)
    assert all((index / name).read_text() == "mine" for name in foreign)


def test_what_is_opened_during_an_update_is_what_the_update_made(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    update(index, pictures)
    (pictures / "red.png").unlink()
    read, old = indexes.read_description, indexes.read_description(index)
    update(index, pictures)
    reads = iter([old])  # then what the folder says
    monkeypatch.setattr(indexes, "read_description", lambda folder: next(reads, None) or read(folder))
    opened = Index(index)
    assert (opened.description.number, len(opened)) == (2, 6)
    (index / "embeddings-2.npy").unlink()
    with pytest.raises(ZeroVLError, match="damaged"):
        Index(index)


def test_a_tar_that_is_cut_short_gives_what_it_has(tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    write_tar(tar, [(f"{number}.png", png((60 * number, 10, 100))) for number in range(2)])
    tar.write_bytes(tar.read_bytes()[:1600])
    done = update(tmp_path / "index", tar)
    opened = Index(tmp_path / "index")
    assert [one.key for one in opened.pictures([0])] == ["0.tar:0.png"]
    assert opened.pictures([0])[0].is_there
    ((reason, count),) = done.reasons.items()
    assert count == 1
    assert reason.endswith("what comes before it is used")
