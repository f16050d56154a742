"""Image towers by a hub's name or a folder: built from the cache alone, told where that lacks them, fetched once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from timm.models import _hub as timm_hub
from torch import nn

from tests.support.hub_server import TOKEN, running_hub
from tests.support.paths import ROOT
from tests.support.towers import TEXT
from zerovl.errors import ZeroVLError
from zerovl.model import towers
from zerovl.model.architecture import Architecture
from zerovl.model.checks import check_towers
from zerovl.params import ModelParams
from zerovl.params_file import from_recipe
from zerovl.training.start_block import normalisation
from zerovl.training.weight_digests import file_digests

COMMIT = "c" * 40
OURS = ("num_classes", "in_chans")  # no classifier, three channels
NAME, OPTIONS = "vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}

# `zerovl fetch-weights` in a process of its own, which imports for seconds and takes the hub's address while it does:
# says the status, and does it again when it is told to.
FETCH_AND_FETCH_AGAIN = """
import sys
from zerovl import cli
print(cli.main(["fetch-weights"]), flush=True)
input()
sys.argv[1:] = ["fetch-weights"]
sys.exit(cli.main())
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A folder as timm writes it for a hub, and the network, which has a classifier of three classes."""
    torch.manual_seed(5)
    network = timm.create_model(NAME, num_classes=3, **OPTIONS)
    folder = tmp_path_factory.mktemp("published")
    config = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    given: dict[str, Any] = {"model_args": OPTIONS, "model_config": {"pretrained_cfg": config}}
    timm_hub.save_for_hf(network, str(folder), safe_serialization=True, **given)
    written = json.loads((folder / "config.json").read_text())
    written["pretrained_cfg"] |= config  # which timm's releases do not all take from there
    (folder / "config.json").write_text(json.dumps(written))
    return folder, network


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def keep(folder: Path, cache: Path, revision: str = "main") -> Path:
    """Lay files down where huggingface_hub keeps those of team/model."""
    repository = cache / "models--team--model"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text(COMMIT)
    return snapshot


def settings(name: str, pretrained: bool = True, **model: Any) -> ModelParams:
    text = {key: value for key, value in TEXT.items() if key not in ("model_type", "vocab_size")}
    tower = {"name": name, "pretrained": pretrained, "options": model.pop("options", {})}
    sides = {"embed_dim": 8, "image_size": 32, "resize_size": 32, "max_tokens": 8}
    return ModelParams.model_validate({"image_tower": tower, "text_tower": {"config": text}, **sides, **model})


def assert_same_weights(tower: nn.Module, network: nn.Module) -> None:
    expected = network.state_dict()
    found = tower.state_dict()
    assert found.keys() == {name for name in expected if not name.startswith("head.")}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["hf-hub:team/model", "hf_hub:team/model", "hf-hub:team/model@v2", "local-dir:"])
def test_a_tower_has_the_published_weights_and_its_bundle_needs_no_hub(
    name: str, published: tuple[Path, nn.Module], cache: Path
) -> None:
    folder, network = published
    if name == "local-dir:":
        name += str(folder)
        place = folder
    else:
        place = keep(folder, cache, "v2" if name.endswith("@v2") else "main")
    asked = settings(name)
    check_towers(asked)
    dual = towers.build(asked, 40, seed=1)
    assert isinstance(dual.image_tower, nn.Module)
    assert_same_weights(dual.image_tower, network)
    assert "state_dict" not in dual.image_tower.pretrained_cfg  # type: ignore[operator]
    digest = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
    assert file_digests(asked)["image_tower"] == {"model.safetensors": digest}

    assert dual.architecture.image_tower == NAME
    written = json.loads((folder / "config.json").read_text())["model_args"]  # timm's releases write sizes differently
    assert dual.architecture.image_options == {key: written[key] for key in written if key not in OURS}
    assert written.keys() >= OPTIONS.keys()
    shutil.rmtree(cache, ignore_errors=True)
    again = towers.from_architecture(Architecture.from_json(dual.architecture.to_json(), "config.json"))
    again.load_state_dict(dual.state_dict())


def test_a_pickle_of_tensors_is_read_too_and_another_size_of_pictures_is_fitted(
    published: tuple[Path, nn.Module], cache: Path
) -> None:
    folder, network = published
    snapshot = keep(folder, cache)
    (snapshot / "model.safetensors").unlink()
    torch.save(network.state_dict(), snapshot / "pytorch_model.bin")
    dual = towers.build(settings("hf-hub:team/model", options={"img_size": 48}, image_size=48, resize_size=48), 40, 1)
    found, expected = dual.image_tower.state_dict(), network.state_dict()
    assert found["pos_embed"].shape == (1, 1 + 9, 16)
    torch.testing.assert_close(found["norm.weight"], expected["norm.weight"], rtol=0, atol=0)
    assert dual.architecture.image_options["img_size"] == 48


def test_published_weights_are_drawn_over_once(published: tuple[Path, nn.Module]) -> None:
    """As those of timm are: what follows, a projection, starts from the same random state."""
    torch.manual_seed(3)
    timm.create_model(NAME, num_classes=0, **OPTIONS)
    expected = torch.rand(())
    torch.manual_seed(3)
    towers.create_image_tower(f"local-dir:{published[0]}", {}, pretrained=True)
    assert torch.rand(()) == expected


def test_random_weights_need_the_config_alone(published: tuple[Path, nn.Module], cache: Path) -> None:
    folder, network = published
    (keep(folder, cache) / "model.safetensors").unlink()
    dual = towers.build(settings("hf-hub:team/model", pretrained=False), 40, seed=1)
    assert not torch.equal(dual.image_tower.state_dict()["cls_token"], network.state_dict()["cls_token"])
    with pytest.raises(ZeroVLError, match=r"hf-hub:team/model: its model\.safetensors is not on this .*fetch-weights"):
        check_towers(settings("hf-hub:team/model"))


def test_an_older_config_is_understood(published: tuple[Path, nn.Module], cache: Path) -> None:
    """One level, as timm wrote it before it had `pretrained_cfg`."""
    folder, _ = published
    snapshot = keep(folder, cache)
    now = json.loads((snapshot / "config.json").read_text())
    older = {**now.pop("pretrained_cfg"), **now}
    (snapshot / "config.json").write_text(json.dumps(older))
    dual = towers.build(settings("hf-hub:team/model"), 40, seed=1)
    assert dual.architecture.image_tower == NAME


def test_what_is_not_there_or_does_not_fit_is_told(
    published: tuple[Path, nn.Module], cache: Path, tmp_path: Path
) -> None:
    folder, network = published
    with pytest.raises(ZeroVLError, match=r"name: hf-hub:team/model: its config\.json is not on .*`zerovl fetch-wei"):
        check_towers(settings("hf-hub:team/model"))
    with pytest.raises(ZeroVLError, match=r"a hub's name is OWNER/MODEL"):
        check_towers(settings("hf-hub:team/a/b"))
    with pytest.raises(ZeroVLError, match=rf"local-dir:{tmp_path}: {tmp_path} has no config\.json; name a folder"):
        check_towers(settings(f"local-dir:{tmp_path}"))
    with pytest.raises(ZeroVLError, match=r"timm has no model 'team/model'; .* is named hf-hub:team/model, a folder"):
        check_towers(settings("team/model"))

    snapshot = keep(folder, cache)
    config = json.loads((snapshot / "config.json").read_text())
    lost = {name: tensor for name, tensor in network.state_dict().items() if name != "cls_token"}
    (snapshot / "model.safetensors").unlink()
    torch.save(lost, snapshot / "pytorch_model.bin")
    with pytest.raises(
        ZeroVLError, match=r"name: .*pytorch_model\.bin: does not fit the tower, 1 problem:\n  missing cls_token"
    ):
        towers.build(settings("hf-hub:team/model"), 40, seed=1)
    wider = timm.create_model(NAME, num_classes=3, **{**OPTIONS, "embed_dim": 32})
    torch.save(wider.state_dict(), snapshot / "pytorch_model.bin")
    with pytest.raises(
        ZeroVLError, match=rf"pytorch_model\.bin does not fit {NAME} with the options .*: size mismatch for cls_token"
    ):
        towers.build(settings("hf-hub:team/model"), 40, seed=1)
    for content, words in (
        ({**config, "architecture": "vit_of_tomorrow"}, r"has no architecture 'vit_of_tomorrow'; install a newer timm"),
        ({"model_type": "clip"}, r"names no architecture of timm; .*`zerovl import`"),
    ):
        (snapshot / "config.json").write_text(json.dumps(content))
        with pytest.raises(ZeroVLError, match=words):
            check_towers(settings("hf-hub:team/model"))


def test_another_mean_than_the_published_one_is_said(published: tuple[Path, nn.Module], cache: Path) -> None:
    keep(published[0], cache)
    hub = ["model.image_tower.name=hf-hub:team/model", "model.image_tower.pretrained=true"]
    (note,) = normalisation(from_recipe({}, hub, "x"))
    assert "hf-hub:team/model were trained with model.mean [0.5, 0.5, 0.5] and model.std [0.25, 0.25, 0.25]" in note
    same = [*hub, "model.mean=[0.5,0.5,0.5]", "model.std=[0.25,0.25,0.25]"]
    assert normalisation(from_recipe({}, same, "x")) == []
    assert normalisation(from_recipe({}, [*hub, "train.init_from=m", "prepare.tokenizer_vocab=0"], "x")) == []
    timm_s = ["model.image_tower.name=vit_base_patch16_224.augreg_in21k", "model.image_tower.pretrained=true"]
    assert "[0.5, 0.5, 0.5]" in normalisation(from_recipe({}, timm_s, "x"))[0]
    assert normalisation(from_recipe({}, timm_s[:1], "x")) == []  # random weights have no mean of their own


def test_fetch_weights_brings_it_from_the_hub(
    published: tuple[Path, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = published
    project = tmp_path / "project"
    project.mkdir()
    text = (ROOT / "params.yaml").read_text().replace("name: resnet18  ", "name: hf-hub:team/model@v2  ", 1)
    assert "hf-hub" in text
    tower = text.index("pretrained: false")
    (project / "params.yaml").write_text(text[:tower] + "pretrained: true" + text[tower + len("pretrained: false") :])
    home = tmp_path / "home"
    paths = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(home)}
    with running_hub() as hub:
        given = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        words = [sys.executable, "-c", FETCH_AND_FETCH_AGAIN]
        with subprocess.Popen(words, cwd=project, env=os.environ | given | paths, text=True, **pipes) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "2\n"
            hub.revision, hub.kept = "v2", {path.name: path.read_bytes() for path in folder.iterdir()}
            said, errors = child.communicate("\n")
    assert "weights could not be fetched" in errors
    assert "Traceback" not in errors
    assert child.returncode == 0, errors
    assert "image tower hf-hub:team/model@v2: fetched" in said
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    dual = towers.build(settings("hf-hub:team/model@v2"), 40, seed=1)
    assert isinstance(dual.image_tower, nn.Module)
    assert_same_weights(dual.image_tower, network)
