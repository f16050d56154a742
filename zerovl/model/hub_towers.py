"""Image towers by their name on a hub, or by a folder that is a copy of one: `hf-hub:timm/resnet18.a1_in1k`.

Such a name says nothing without its `config.json`, which holds timm's name of the network and the options that it was
built with (https://huggingface.co/docs/timm/hf_hub). A model is described by these, so that a bundle needs neither
hub nor cache. Reads the local cache of Hugging Face alone; `fetch` is the one that fills it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from timm.models import PretrainedCfg
from torch import nn

from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.model.timm_towers import offline, timm_tower
from zerovl.model.undrawn import undrawn
from zerovl.model.weight_files import check_names, read_tensors

KINDS = ("hf-hub", "hf_hub", "local-dir")  # as timm spells them; the second is its older spelling of the first
_FOLDER = "local-dir"
_CONFIG, _WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
_OURS = ("num_classes", "in_chans")  # options that a dual encoder decides: no classifier, RGB
_KEY = "model.image_tower.name"


@dataclass(frozen=True)
class HubTower:
    """What a hub's name stands for."""

    architecture: str  # timm's name of the network
    options: dict[str, Any]  # keyword arguments of timm.create_model that its weights need
    published: dict[str, Any]  # timm's pretrained_cfg: mean, std, size of the input and so on


def is_hub_name(name: str) -> bool:
    """Whether a tower is named by a hub or a folder."""
    kind, found, _ = name.partition(":")
    return bool(found) and kind in KINDS


def find(name: str) -> HubTower:
    """Return what is known here of `KIND:NAME`.

    Raises `ZeroVLError` where its config is not on this machine, is not timm's, or names a network unknown to timm.
    """
    path = _local(name, _CONFIG)
    if path is None:
        raise ZeroVLError(f"{_KEY}: {name}: {_how_to_get(name, _CONFIG)}")
    config = read_json(path)
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if not isinstance(architecture, str):
        raise ZeroVLError(
            f"{_KEY}: {name}: {path} names no architecture of timm; name a model that was published with timm. A "
            "whole CLIP is brought in with `zerovl import`, and trained on with train.init_from"
        )
    if not timm.is_model(architecture):
        raise ZeroVLError(
            f"{_KEY}: {name}: {path}: timm {timm.__version__} has no architecture {architecture!r}; install a newer "
            "timm"
        )
    published = {**config.get("pretrained_cfg", config), "num_classes": _classes(config)}
    options = {key: value for key, value in (config.get("model_args") or {}).items() if key not in _OURS}
    return HubTower(architecture, options, published)


def find_weights(name: str) -> Path:
    """Return the file of weights that lies here of `KIND:NAME`; raises `ZeroVLError` where there is none."""
    found = next((file for each in _WEIGHTS if (file := _local(name, each))), None)
    if found is None:
        raise ZeroVLError(f"{_KEY}: {name}: {_how_to_get(name, _WEIGHTS[0])}")
    return found


def resolve(name: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return timm's name and options for a hub's name, any other name and its options as they are.

    Raises `ZeroVLError` as `find` does.
    """
    if not is_hub_name(name):
        return name, options
    found = find(name)
    return found.architecture, {**found.options, **options}


def published_input(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation of the input that published weights were trained with; None where nobody says so."""
    if is_hub_name(name):
        found = find(name).published
        return (tuple(found["mean"]), tuple(found["std"])) if {"mean", "std"} <= found.keys() else None
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return (tuple(config.mean), tuple(config.std)) if config else None


def hub_tower(kind: str, place: str, options: dict[str, Any], pretrained: bool) -> nn.Module:
    """Build the tower that `KIND:PLACE` stands for, without classifier; with its weights where they are wanted.

    Raises `ZeroVLError` as `find` and `timm_tower` do, and for weights that are not here or lack some of the tower's.
    """
    name = f"{kind}:{place}"
    found = find(name)
    options = {**found.options, **options}
    if not pretrained:
        return timm_tower(found.architecture, options, pretrained=False)
    file = find_weights(name)
    tensors = read_tensors(file)
    names_alone = undrawn(lambda: timm_tower(found.architecture, options, pretrained=False))
    check_names(_KEY, names_alone, tensors, file)
    tensors = {name: tensors[name] for name in names_alone.state_dict()}  # without the classifier
    known = {field.name for field in fields(PretrainedCfg)} - {"source", "file", "url", "hf_hub_id", "hf_hub_filename"}
    published = {key: value for key, value in found.published.items() if key in known}
    try:  # timm fills it: it fits positions to another size of pictures, each network in its own way
        with offline():
            filled: Any = timm.create_model(
                found.architecture,
                pretrained=True,
                pretrained_cfg={**published, "state_dict": tensors},
                **{"num_classes": 0, **options},
            )
    except RuntimeError as error:
        raise ZeroVLError(
            f"{_KEY}: {name}: {file} does not fit {found.architecture} with the options {options}: {_first(error)}"
        ) from None
    del filled.pretrained_cfg["state_dict"]  # else they stay in memory
    filled_tower: nn.Module = filled
    return filled_tower


def fetch(name: str, pretrained: bool) -> None:
    """Bring the config of a hub's name, and its weights where they are wanted, into the local cache.

    Raises `OSError` of huggingface_hub, and `ZeroVLError` where a folder lacks them.
    """
    if name.partition(":")[0] == _FOLDER:
        (find_weights if pretrained else find)(name)
        return
    repository, revision = _split(name)
    hf_hub_download(repository, _CONFIG, revision=revision)
    if not pretrained:
        return
    for file in _WEIGHTS:
        try:
            hf_hub_download(repository, file, revision=revision)
        except EntryNotFoundError:
            if file == _WEIGHTS[-1]:
                raise
        else:
            return


def _local(name: str, file: str) -> Path | None:
    kind, _, place = name.partition(":")
    if kind == _FOLDER:
        path = Path(place, file)
        return path if path.is_file() else None
    repository, revision = _split(name)
    try:
        found = try_to_load_from_cache(repository, file, revision=revision)
    except HFValidationError as error:
        raise ZeroVLError(f"{_KEY}: {name}: {error}; a hub's name is OWNER/MODEL, or OWNER/MODEL@REVISION") from None
    return Path(found) if isinstance(found, str) else None


def _split(name: str) -> tuple[str, str | None]:
    repository, _, revision = name.partition(":")[2].partition("@")
    return repository, revision or None


def _first(error: RuntimeError) -> str:
    """The first misfit that torch lists, behind a line that says that there are some."""
    return str(error).splitlines()[:2][-1].strip()


def _how_to_get(name: str, file: str) -> str:
    kind, _, place = name.partition(":")
    if kind == _FOLDER:
        return f"{place} has no {file}; name a folder that timm wrote, or that is a copy of a hub's"
    return (
        f"its {file} is not on this machine; run `zerovl fetch-weights` once on a machine with a network, or name a "
        "folder that holds a copy as local-dir:FOLDER"
    )


def _classes(config: dict[str, Any]) -> Any:
    return config.get("num_classes", config.get("pretrained_cfg", {}).get("num_classes"))
