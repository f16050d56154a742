"""Features of frozen towers: what is read from the disk is what the towers would give, and nothing is read twice."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.support.rank_groups import run_group
from tests.support.stops import StopAfter
from tests.support.tiny_project import TRAIN, copy_project, make_project, recipe
from zerovl import code_closure
from zerovl.bundle_files import WEIGHTS
from zerovl.data.shards import ShardReader
from zerovl.distributed import exits
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.frozen_features import cached_sides, unaugmented_sides, without_cache
from zerovl.engine.trainer import StopRequest
from zerovl.errors import ZeroVLError
from zerovl.model.preprocess import EvaluationTransform
from zerovl.params import Params
from zerovl.training import features
from zerovl.training import run as training
from zerovl.workspace import Workspace

ONE = Ranks(0, 1, torch.device("cpu"), OneRank())
STILL = (
    "train.augment.crop_scale=[1.0, 1.0]",
    "train.augment.mask_probability=0.0",
    "train.mixup=text",
    "train.epochs=1.0",
    "train.valid_checks=0",
)
BOTH = "train.freeze=[image, text]"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def workspace(project: Workspace, tmp_path: Path) -> Workspace:
    return copy_project(project, tmp_path / "run")


def train(workspace: Workspace, *overrides: str, stop: StopRequest | None = None) -> int:
    return training.train(recipe(*STILL, *overrides), workspace, ONE, stop or StopRequest())


def weights(workspace: Workspace) -> dict[str, torch.Tensor]:
    return load_file(workspace.model / WEIGHTS)


def folders(workspace: Workspace) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in (workspace.runs / "features").glob("*"))


@pytest.mark.parametrize(
    ("changes", "cached"),
    [
        ([BOTH], ["image", "text"]),
        ([BOTH, "train.step=plain", "train.batch_size=32"], ["image", "text"]),
        (["train.freeze=[image]"], ["image"]),
        (["train.freeze=[text]", "train.mixup=coin"], ["text"]),
    ],
)
def test_cached_is_as_computed_in_every_step(
    changes: list[str], cached: list[str], project: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast, slow = copy_project(project, tmp_path / "fast"), copy_project(project, tmp_path / "slow")
    assert train(slow, *changes, "machine.cache_features=false") == 0
    assert "frozen towers go forward in every step" in capsys.readouterr().out
    assert train(fast, *changes) == 0
    said = capsys.readouterr().out
    assert folders(fast) == cached
    assert not (slow.runs / "features").exists()
    for side in cached:
        assert f"the {side} tower makes of" in said
        assert f"{fast.runs}/features/{side}-" in said
    expected = weights(slow)
    for name, tensor in weights(fast).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-5)
    start = recipe(*STILL, *changes).model.temperature
    assert float(weights(fast)["temperature"]) != start


def test_shards_are_read_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(workspace, BOTH)
    assert "is computed before the first step" in capsys.readouterr().out

    def no_shard(*_: object) -> None:
        raise AssertionError("a shard is read")

    monkeypatch.setattr(ShardReader, "read", no_shard)
    assert train(workspace, BOTH, "train.lr=0.002", "train.batch_size=32", "train.micro_batch=16") == 0
    assert "is read from" in capsys.readouterr().out
    assert folders(workspace) == ["image", "text"]


def test_other_weights_have_features_of_their_own(workspace: Workspace) -> None:
    train(workspace, BOTH)
    train(workspace, BOTH, "train.seed=1")
    assert folders(workspace) == ["image", "image", "text", "text"]


@pytest.mark.parametrize("name", ["engine/patches.py", "engine/precision.py"])
def test_other_code_of_the_towers_has_features_of_its_own(
    name: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(workspace, BOTH)
    code = code_closure.digests("train")
    assert name in code
    monkeypatch.setattr(code_closure, "digests", lambda _stage: {**code, name: "other"})
    train(workspace, BOTH, "train.lr=0.002")
    assert folders(workspace) == ["image", "image", "text", "text"]


def test_what_is_cut_short_is_computed_again(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(workspace, BOTH, stop=StopAfter(1)) == exits.INTERRUPTED
    assert folders(workspace) == []
    assert train(workspace, BOTH) == 0
    assert folders(workspace) == ["image", "text"]


def test_a_full_disk_is_named_with_the_fix(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "write_rows", full)
    with pytest.raises(ZeroVLError, match=r"No space left .*set machine\.cache_features to false"):
        train(workspace, BOTH)


def on_two_ranks(ranks: Ranks, root: str) -> int:
    params = recipe(*STILL, BOTH, "machine.ranks=2", "evaluate.batch_size=7")
    return training.train(params, Workspace(Path(root)), ranks, StopRequest())


def test_two_ranks_share_the_work(project: Workspace, tmp_path: Path) -> None:
    alone, shared = copy_project(project, tmp_path / "alone"), copy_project(project, tmp_path / "shared")
    train(alone, BOTH)
    assert run_group(2, on_two_ranks, str(shared.root)) == [0, 0]
    ours, theirs = (sorted((place.runs / "features").glob("*/*.npy")) for place in (alone, shared))
    assert [path.relative_to(alone.runs) for path in ours] == [path.relative_to(shared.runs) for path in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        left, right = np.load(mine), np.load(other)
        if left.dtype == np.float32:
            assert len(left) == TRAIN * (1 if "image" in mine.parent.name else 2)
            assert np.abs(left).sum(axis=1).min() > 0  # every row was written
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
        else:
            assert (left == right).all()


def params_of(*overrides: str) -> Params:
    return recipe(*STILL, *overrides)


def test_which_sides_are_cached_and_what_is_said_of_the_others() -> None:
    assert cached_sides(params_of()) == []
    assert without_cache(params_of()) == []
    assert cached_sides(params_of(BOTH)) == ["image", "text"]
    mixed = params_of(BOTH, "train.mixup=coin")
    assert cached_sides(mixed) == ["text"]
    (note,) = without_cache(mixed)
    assert "frozen image tower goes forward in every step" in note
    assert "train.mixup to text or none" in note
    masked = params_of(BOTH, "train.augment.mask_probability=0.1", "train.augment.auto_augment=true")
    assert cached_sides(masked) == []
    assert len(without_cache(masked)) == 2


def test_a_frozen_tower_without_augmentation_sees_what_evaluation_sees() -> None:
    picture = Image.effect_noise((50, 41), 90).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG")
    params = params_of("train.freeze=[image]", "train.mixup=coin", "machine.cache_features=false")
    assert unaugmented_sides(params.train) == ["image"]
    transform = features.training_transform(params)
    expected = EvaluationTransform(params.model.image_size, params.model.resize_size)(picture)
    assert torch.equal(transform(file.getvalue(), 3), expected)
    assert not torch.equal(features.training_transform(params_of())(file.getvalue(), 3), expected)
