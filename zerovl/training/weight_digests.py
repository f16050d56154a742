"""Which weights a run starts from: the files by their content, and the model's tensors on each rank."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn

from zerovl.files import read_json, sha256_file
from zerovl.model import hub_towers
from zerovl.params import ImageTowerParams, ModelParams

_SAFE, _INDEX, _PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"


def file_digests(params: ModelParams) -> dict[str, dict[str, str]]:
    """Return the sha256 of each weights file by tower and name, where the place of the file is known.

    A tower from random weights, and one whose library keeps its cache elsewhere, have none.
    """
    towers = {"image_tower": _image_files(params.image_tower), "text_tower": _text_files(params)}
    return {tower: {path.name: sha256_file(path) for path in files} for tower, files in towers.items() if files}


def model_digest(model: nn.Module) -> str:
    """Return the sha256 over names and bytes of all weights of a model that is whole and on the CPU."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _image_files(tower: ImageTowerParams) -> list[Path]:
    if tower.weights:
        return [Path(tower.weights)]
    if not tower.pretrained:
        return []
    if hub_towers.is_hub_name(tower.name):
        return [hub_towers.find_weights(tower.name)]
    found = _timm_file(tower.name.removeprefix("timm:"), tower.options)
    return [found] if found else []


def _timm_file(name: str, options: dict[str, Any]) -> Path | None:
    """Where timm takes published weights from: a file that the options name, torch's cache, or Hugging Face's."""
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        return None
    if file := (options.get("pretrained_cfg_overlay") or {}).get("file"):
        return Path(file)
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(config.url).name) if config.url else None
    if cached and cached.is_file():
        return cached
    names = [config.hf_hub_filename, _SAFE, _PICKLED]
    return next((path for file in names if file and (path := _cached(config.hf_hub_id, file))), None)


def _text_files(params: ModelParams) -> list[Path]:
    tower = params.text_tower
    if not tower.pretrained:
        return []
    if single := _find(tower.name, _SAFE):
        return [single]
    index = _find(tower.name, _INDEX)
    shards = sorted(set(read_json(index)["weight_map"].values())) if index else []
    return [path for shard in shards if (path := _find(tower.name, shard))]


def _find(name: str, file: str) -> Path | None:
    path = Path(name, file)
    return (path if path.is_file() else None) if Path(name).is_dir() else _cached(name, file)


def _cached(repository: str | None, file: str) -> Path | None:
    found = try_to_load_from_cache(repository, file) if repository else None
    return Path(found) if isinstance(found, str) else None
