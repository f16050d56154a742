"""The fixed sample of a release: what is shipped, and what a promotion finds with it."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.fake_world import FakeEncoder, World, make_world
from tests.support.real_world import make_model, make_project, settings
from zerovl.errors import ZeroVLError
from zerovl.model.encoder import Encoder
from zerovl.release import sample, sample_pairs, sample_pictures
from zerovl.stages import evaluate
from zerovl.workspace import Workspace


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    space = make_project(tmp_path_factory.mktemp("project"))
    make_model(space, seed=0)
    evaluate.run(settings(space.root), space)
    return space


@pytest.fixture
def release(workspace: Workspace, tmp_path: Path) -> Path:
    """A release as it is fetched: the bundle and its sample."""
    shutil.copytree(workspace.model, tmp_path / "release")
    shutil.copytree(workspace.evaluation_report / "sample", tmp_path / "release" / "sample")
    return tmp_path / "release"


def test_the_same_seed_draws_the_same_pairs(world: World) -> None:
    pool, _ = world.encoded(FakeEncoder())
    drawn = sample.draw(pool, 5, seed=3)
    assert list(drawn) == list(sample.draw(pool, 5, seed=3)) == sorted(set(drawn))
    assert list(drawn) != list(sample.draw(pool, 5, seed=4))
    assert list(sample.draw(pool, 100, seed=3)) == list(range(28))
    assert len(sample.draw(pool, 0, seed=3)) == 0


def test_the_sample_is_a_shard_with_stored_bytes_and_what_the_evaluation_computed(workspace: Workspace) -> None:
    folder = workspace.evaluation_report / "sample"
    found = list(webdataset.WebDataset(str(folder / "pairs.tar"), shardshuffle=False))
    assert len(found) == 6
    tensors = load_file(folder / "embeddings.safetensors")
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()} == {
        "image_emb": ((6, 16), torch.float32),
        "text_emb": ((6, 16), torch.float32),
    }
    encoder = Encoder.load(workspace.model)
    for row, item in enumerate(found):
        record = json.loads(item["json"])
        raw = workspace.root / "raw" / record["source"] / "valid" / f"{record['image_id']}.jpg"
        assert item["jpg"] == raw.read_bytes()
        picture = encoder.encode_image([Image.open(io.BytesIO(item["jpg"]))])
        torch.testing.assert_close(picture[0], tensors["image_emb"][row], rtol=1e-4, atol=1e-5)
        text = encoder.encode_text(record["captions"][:1])
        torch.testing.assert_close(text[0], tensors["text_emb"][row], rtol=1e-4, atol=1e-5)


def test_a_sound_release_is_told_so(release: Path) -> None:
    assert sample.check(release).startswith("6 sample pairs embedded again: cosines within ")


def test_other_weights_are_found_with_the_worst_pair(release: Path, workspace: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "other")
    shutil.copytree(workspace.tokenizer, other.tokenizer)
    make_model(other, seed=1)
    shutil.copy(other.model / "model.safetensors", release / "model.safetensors")
    message = r"the cosine of picture .* and caption '.*' is -?\d\.\d{4}, its sample says -?\d\.\d{4} \(at most 0\.01"
    with pytest.raises(ZeroVLError, match=message):
        sample.check(release)


def test_the_pair_that_is_named_is_the_worst(release: Path) -> None:
    path = release / "sample" / "embeddings.safetensors"
    tensors = load_file(path)
    tensors["image_emb"][4] = -tensors["image_emb"][4]
    save_file(tensors, path)
    with tarfile.open(release / "sample" / "pairs.tar") as tar:
        record = tar.extractfile("000004.json")
        assert record is not None
        key = json.load(record)["key"]
    with pytest.raises(ZeroVLError, match=f"the cosine of picture {key} and caption"):
        sample.check(release)
    tensors["image_emb"][:] = torch.nan
    save_file(tensors, path)
    with pytest.raises(ZeroVLError, match="its sample says nan"):
        sample.check(release)


def test_a_sample_without_some_pictures_is_scored_by_the_others(release: Path) -> None:
    files = [release / "sample" / name for name in ("pairs.tar", "embeddings.safetensors")]
    before = [path.read_bytes() for path in files]
    found = sample_pictures.pictures(before[0], "test")
    with tarfile.open(files[0]) as tar:
        keys = [json.load(tar.extractfile(f"{row:06d}.json"))["key"] for row in range(6)]  # type: ignore[arg-type]
    assert [(picture.row, picture.key) for picture in found] == list(enumerate(keys))
    for path, data in zip(files, sample_pictures.without(*before, [found[1], found[4]], "test"), strict=True):
        path.write_bytes(data)
    assert sample.check(release).startswith("4 sample pairs embedded again: cosines within ")
    assert [pair.image for pair in sample_pairs.read_stored(files[0])] == [
        data for row, data in enumerate(pair.image for pair in _stored(before[0], release)) if row not in (1, 4)
    ]
    for path, data in zip(files, sample_pictures.without(*before, found, "test"), strict=True):
        path.write_bytes(data)
    assert sample.check(release) == "note: the release's sample is empty, so it was loaded but not scored"


def _stored(pairs: bytes, folder: Path) -> list[sample_pairs.StoredPair]:
    (folder / "before.tar").write_bytes(pairs)
    return sample_pairs.read_stored(folder / "before.tar")


def test_rounding_of_another_machine_is_let_through(release: Path) -> None:
    path = release / "sample" / "embeddings.safetensors"
    tensors = {name: tensor.bfloat16().float() for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    assert "6 sample pairs embedded again" in sample.check(release)


def test_a_release_that_cannot_be_loaded_is_an_error(release: Path) -> None:
    (release / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ZeroVLError, match=r"model\.safetensors: damaged"):
        sample.check(release)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs.tar", b"no tar", r"pairs\.tar: no readable sample"),
        ("embeddings.safetensors", b"nothing", r"embeddings\.safetensors: no readable embeddings"),
    ],
)
def test_a_broken_sample_is_named(release: Path, name: str, content: bytes, message: str) -> None:
    (release / "sample" / name).write_bytes(content)
    with pytest.raises(ZeroVLError, match=message):
        sample.check(release)


def test_a_sample_of_another_length_is_named(release: Path) -> None:
    empty = torch.zeros(2, 16)
    save_file({"image_emb": empty, "text_emb": empty.clone()}, release / "sample" / "embeddings.safetensors")
    with pytest.raises(ZeroVLError, match=r"2 pictures and 2 captions, but pairs\.tar has 6 pairs"):
        sample.check(release)


def test_without_a_sample_the_release_is_loaded_all_the_same(release: Path) -> None:
    shutil.rmtree(release / "sample")
    assert sample.check(release) == "note: the release has no sample, so it was loaded but not scored"
    (release / "config.json").unlink()
    with pytest.raises(ZeroVLError, match=r"no config\.json"):
        sample.check(release)


def test_a_sample_of_none_is_empty_but_there(world: World, release: Path) -> None:
    pool, (embeddings,) = world.encoded(FakeEncoder())
    sample.write(release / "sample", pool, embeddings, np.array([], np.int64), lambda image: pytest.fail("read"))
    assert sample.check(release) == "note: the release's sample is empty, so it was loaded but not scored"
