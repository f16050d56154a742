"""What a run is called by: settings that came later leave the fingerprints of earlier runs as they are."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import zerovl
from tests.support.thread_ranks import ThreadRank, on_ranks
from tests.support.tiny_project import make_project, recipe, set_params, train
from tests.support.towers import model
from zerovl.distributed.ranks import Ranks
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sha256_file
from zerovl.params import ImageTowerParams, ModelParams
from zerovl.release import model_card
from zerovl.training import fingerprint
from zerovl.training.run_spec import Run, make_spec
from zerovl.training.run_state import check_ranks_agree
from zerovl.training.weight_digests import file_digests, model_digest
from zerovl.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_project(tmp_path_factory.mktemp("project"))


def described(workspace: Workspace, *overrides: str) -> dict[str, Any]:
    return make_spec(recipe(*overrides), workspace).description


def test_a_later_setting_of_the_towers_counts_where_it_is_not_what_was_there_before(workspace: Workspace) -> None:
    before = described(workspace, "model.text_tower.pooling=first")
    assert set(before["model"]["text_tower"]) == {"name", "pretrained", "config"}
    mean = described(workspace, "model.text_tower.pooling=mean")
    assert mean["model"]["text_tower"]["pooling"] == "mean"
    assert described(workspace) == mean, "auto is the mean for a tower from scratch"
    assert fingerprint.differences(before, mean) == ["model.text_tower.pooling: first -> mean"]


def test_a_source_that_only_the_gate_knows_is_told_before_the_first_step(workspace: Workspace) -> None:
    with pytest.raises(ZeroVLError, match=r"register\.gate\.min_source_rsum: 'gone': no such source has validation"):
        make_spec(recipe("register.gate.min_source_rsum={gone: 100}"), workspace)


def test_the_content_of_weights_files_counts_and_their_absence_changes_nothing(
    workspace: Workspace, tmp_path: Path
) -> None:
    assert "weights" not in described(workspace)
    image, text = tmp_path / "w.safetensors", tmp_path / "bert"
    text.mkdir()
    config = {"model_type": "bert", "vocab_size": 80, "hidden_size": 16, "num_attention_heads": 2}
    (text / "config.json").write_text(json.dumps(config))
    asked = [
        f"model.image_tower.weights={image}",
        f"model.text_tower={{name: {text}, pretrained: true, config: {{}}}}",
    ]
    found = []
    for content in (b"one", b"two"):
        image.write_bytes(content)
        (text / "model.safetensors").write_bytes(b"text")
        found.append(described(workspace, *asked))
    digests = {name: hashlib.sha256(name).hexdigest() for name in (b"one", b"two", b"text")}
    assert [one["weights"] for one in found] == [
        {"image_tower": {"w.safetensors": digests[name]}, "text_tower": {"model.safetensors": digests[b"text"]}}
        for name in (b"one", b"two")
    ]
    assert fingerprint.differences(*found) == ["weights"]
    assert fingerprint.digest(found[0]) != fingerprint.digest(found[1])
    (text / "model.safetensors").unlink()
    shards = {"a.weight": "s-1.safetensors", "b.weight": "s-2.safetensors", "c.weight": "s-1.safetensors"}
    (text / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    for shard in set(shards.values()):
        (text / shard).write_bytes(b"text")
    assert set(described(workspace, *asked)["weights"]["text_tower"]) == set(shards.values())


def test_weights_of_timm_are_found_in_its_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    tower = ModelParams().model_copy(update={"image_tower": ImageTowerParams(name="resnet18.tv_in1k", pretrained=True)})
    assert file_digests(tower) == {}
    url = timm.get_pretrained_cfg("resnet18.tv_in1k").url
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / Path(url).name).write_bytes(b"one")
    assert file_digests(tower)["image_tower"] == {Path(url).name: hashlib.sha256(b"one").hexdigest()}


def test_a_rank_with_other_weights_is_named(workspace: Workspace) -> None:
    spec = make_spec(recipe(), workspace)

    def check(mine: ThreadRank, digests: list[str], newest: list[int]) -> str:
        run = Run(recipe(), workspace, Ranks(mine.rank, 3, torch.device("cpu"), mine), spec)
        try:
            check_ranks_agree(run, newest[mine.rank], digests[mine.rank])
        except ZeroVLError as error:
            return str(error)
        return ""

    same, other = "a" * 64, "b" * 64
    assert on_ranks(3, lambda rank: check(rank, [same] * 3, [3] * 3)) == [""] * 3
    for said in on_ranks(3, lambda rank: check(rank, [same, other, same], [3] * 3)):
        assert "1 rank (1) of 3 would start from other weights than the rest" in said
    for said in on_ranks(3, lambda rank: check(rank, [same, other, same], [3, 3, 0])):
        assert "different checkpoints, data or settings (steps [3, 3, 0])" in said


def test_the_digest_of_a_model_sees_every_weight() -> None:
    dual, again = model("test_resnet"), model("test_resnet")
    assert model_digest(dual) == model_digest(again)
    with torch.no_grad():
        again.temperature += 1e-6
    assert model_digest(dual) != model_digest(again)


def test_a_release_names_the_weights_and_a_bundle_needs_their_file_no_more(workspace: Workspace) -> None:
    options = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    path = workspace.root / "image.safetensors"
    torch.manual_seed(7)
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=3, **options).state_dict(), path)
    digest = sha256_file(path)
    set_params(workspace, "train.epochs=0.5", "train.valid_checks=0", f"model.image_tower.weights={path}")
    train(workspace)
    path.unlink()
    assert zerovl.load(str(workspace.model), device="cpu").encode_text(["a box"]).shape == (1, 16)
    run = read_json(workspace.training_run)
    assert run["weights"] == {"image_tower": {"image.safetensors": digest}}
    card = model_card._origin({"run": run})
    assert f"- image_tower began with image.safetensors, sha256 {digest}" in card
