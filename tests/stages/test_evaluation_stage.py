"""The stage's files and words, on the fake world."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.fake_world import FakeEncoder, World, make_world
from zerovl.data.manifest import Manifest, ShardInfo, SplitInfo
from zerovl.errors import ZeroVLError
from zerovl.evaluation import job, validation_set
from zerovl.files import sha256_file
from zerovl.params import EvaluateParams, Params
from zerovl.stages import evaluate
from zerovl.workspace import Workspace

PARAMS = Params(evaluate=EvaluateParams(bootstrap=20, gallery=4, batch_size=5))


def manifest_of(world: World, folder: Path, digest: str = "d") -> Manifest:
    splits = {}
    for source, rows in world.samples.items():
        for split in ("train", "valid"):
            shard = ShardInfo(f"{source}/{split}/000000.tar", len(rows), 1, f"{digest}-{source}-{split}")
            splits[source, split] = SplitInfo(len(rows), len(rows), 0, (shard,))
    return Manifest(folder, splits)


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def workspace(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    space = Workspace(tmp_path)
    space.model.mkdir()
    (space.model / "model.safetensors").write_bytes(b"weights")
    manifest_of(world, space.manifest).save()

    class Batches(list):
        def __enter__(self) -> Batches:
            return self

        def __exit__(self, *_: object) -> None:
            self.clear()

    monkeypatch.setattr(
        validation_set,
        "evaluation_batches",
        lambda manifest, shards, source, split, transform, size, workers, share: Batches(
            world.batches(source, transform, size)[share]
        ),
    )
    monkeypatch.setattr(
        evaluate,
        "read_image",
        lambda manifest, shards, source, split, row: SimpleNamespace(
            image=world.samples[source][row][0],
            key=f"{source}-{world.samples[source][row][2]}",
            captions=world.samples[source][row][1],
            caption_ids=list(range(len(world.samples[source][row][1]))),
            image_id=world.samples[source][row][2],
            source=source,
        ),
    )
    monkeypatch.setattr(job.Encoder, "load", lambda folder, device: FakeEncoder())
    monkeypatch.setattr(job.Encoder, "untrained", lambda folder, seed, device: FakeEncoder(seed + 1, blind=True))
    return space


def test_writes_all_files_and_says_the_scores(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.run(PARAMS, workspace)
    folder = workspace.evaluation_report
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    sample = {"sample/pairs.tar", "sample/embeddings.safetensors"}
    by_item = {"queries.parquet", "items.parquet"}
    assert files == {"metrics.json", "scores.json", "report.html", "gallery.png"} | by_item | sample
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == ["mean", "overall", "sources", "unseen", "evaluation_digest", "model_digest"]
    assert metrics["unseen"] == []
    assert list(metrics["sources"]) == ["alpha", "beta"]
    expected = ["images", "captions", *(f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)), "rsum"]
    expected += ["rsum_low", "rsum_high", "untrained_rsum", "chance_rsum", "rsum_over_untrained"]
    assert list(metrics["mean"]) == list(metrics["overall"]) == expected
    assert metrics["model_digest"] == sha256_file(workspace.model / "model.safetensors")
    said = capsys.readouterr().out
    assert str(folder / "report.html") in said
    for name in ("mean", "pool", "alpha", "beta"):
        assert any(line.startswith(name) for line in said.splitlines())
    assert f"{metrics['mean']['rsum']:.1f}" in said


def test_a_source_without_training_pairs_is_marked(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Manifest.load(workspace.manifest)
    splits = {key: info for key, info in manifest.splits.items() if key != ("beta", "train")}
    Manifest(workspace.manifest, splits).save()
    evaluate.run(PARAMS, workspace)
    assert json.loads(workspace.evaluation_metrics.read_text())["unseen"] == ["beta"]
    assert any(line.startswith("beta (unseen) ") for line in capsys.readouterr().out.splitlines())
    assert "beta (unseen)" in workspace.evaluation_page.read_text()


def test_same_input_same_files(workspace: Workspace) -> None:
    digests = []
    for _ in range(2):
        evaluate.run(PARAMS, workspace)
        files = [path for path in workspace.evaluation_report.rglob("*") if path.is_file()]
        digests.append({path.name: sha256_file(path) for path in files})
    assert digests[0] == digests[1]


def test_no_valid_split_is_an_error_with_the_fix(workspace: Workspace) -> None:
    manifest = Manifest.load(workspace.manifest)
    train = {key: info for key, info in manifest.splits.items() if key[1] == "train"}
    Manifest(workspace.manifest, train).save()
    with pytest.raises(ZeroVLError, match=r"no source has a valid split.*prepare\.draw_valid.*data/README\.md"):
        evaluate.run(PARAMS, workspace)
    assert not workspace.evaluation_report.exists()


def test_shards_that_do_not_fit_the_manifest_are_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "read_image", lambda *_: SimpleNamespace(image=b"", key="other-1"))
    with pytest.raises(ZeroVLError, match="is other-1, expected"):
        evaluate.run(PARAMS, workspace)


def test_digest_follows_the_valid_shards_only(world: World, tmp_path: Path) -> None:
    base = manifest_of(world, tmp_path)
    digest = evaluate.evaluation_digest(base)
    other_train = {**base.splits, ("alpha", "train"): SplitInfo(1, 1, 0, ())}
    assert evaluate.evaluation_digest(Manifest(tmp_path, other_train)) == digest
    assert evaluate.evaluation_digest(manifest_of(world, tmp_path, "other")) != digest
