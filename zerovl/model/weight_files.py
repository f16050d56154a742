"""Read weights that others made: `.safetensors`, or a pickle of tensors by torch's restricted unpickler."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from zerovl.errors import ZeroVLError
from zerovl.model.tensor_differences import check_fits, shapes

_PICKLES = (".pth", ".pt", ".bin")
_NESTED = ("state_dict", "model")  # where checkpoints keep their weights
_PARALLEL = "module."  # what DistributedDataParallel puts before each name
_SHOWN = 5


def load_image_weights(tower: nn.Module, file: Path) -> None:
    """Fill an image tower from a file of its library's names; a classifier that the tower lacks is left out.

    Raises `ZeroVLError` that names some of the keys that are missing, left over or of another shape.
    """
    expected, weights = tower.state_dict(), read_tensors(file)
    _check(shapes(_without_classifier(weights, tower)), shapes(expected), f"model.image_tower.weights: {file}")
    tower.load_state_dict({name: tensor for name, tensor in weights.items() if name in expected})


def check_names(key: str, tower: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Raise `ZeroVLError` where tensors lack some of a tower's, or have others than its classifier beside them.

    `key` is the setting that named the `file`.
    """
    found = dict.fromkeys(_without_classifier(weights, tower), "a name")
    _check(found, dict.fromkeys(tower.state_dict(), "a name"), f"{key}: {file}")


def _check(found: Mapping[str, str], expected: Mapping[str, str], origin: str) -> None:
    fix = "name the tower and the options that these weights were trained with, or weights with its library's names"
    check_fits(found, expected, f"{origin}: does not fit the tower", fix)


def _without_classifier(weights: Mapping[str, Tensor], tower: nn.Module) -> dict[str, Tensor]:
    expected, heads = tower.state_dict(), _classifiers(tower)
    return {name: tensor for name, tensor in weights.items() if name in expected or not _in(name, heads)}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, out of `state_dict` or `model` and without the prefix `module.`.

    Raises `ZeroVLError` for a file that is missing, damaged, of another kind, or holds more than tensors.
    """
    if file.suffix == ".safetensors":
        values = _read_safetensors(file)
    elif file.suffix in _PICKLES:
        values = read_pickle(file)
    else:
        known = ", ".join((".safetensors", *_PICKLES))
        raise ZeroVLError(f"{file}: {file.suffix or 'no suffix'} is not a suffix of weights; known are {known}")
    while (inner := _nested(values)) is not None:
        values = inner
    others = [str(key) for key, value in values.items() if not isinstance(value, Tensor)] if values else ["nothing"]
    if others:
        raise ZeroVLError(f"{file}: expected names and tensors, found {', '.join(others[:_SHOWN])}; name the weights")
    prefixed = all(name.startswith(_PARALLEL) for name in values)
    return {name.removeprefix(_PARALLEL) if prefixed else name: tensor for name, tensor in values.items()}


def read_pickle(file: Path) -> dict[Any, Any]:
    """Read a mapping that torch saved, tensors and plain values only; raises `ZeroVLError` and runs nothing of it."""
    try:
        with torch.serialization.safe_globals([TorchVersion]):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ZeroVLError(f"{file}: no such file; name one that exists") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ZeroVLError(
            f"{file}: not a checkpoint of tensors and plain values ({first}); nothing of it was run"
        ) from None
    if not isinstance(found, dict):
        raise ZeroVLError(f"{file}: holds {type(found).__name__}, expected names and tensors; name the weights")
    return found


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = load_file(file)
    except FileNotFoundError:
        raise ZeroVLError(f"{file}: no such file; name one that exists") from None
    except SafetensorError as error:
        raise ZeroVLError(f"{file}: damaged ({error}); fetch it again") from None
    return found


def _nested(values: dict[Any, Any]) -> dict[Any, Any] | None:
    return next((values[key] for key in _NESTED if isinstance(values.get(key), dict)), None)


def _classifiers(tower: nn.Module) -> tuple[str, ...]:
    """Names of the parts of a timm model that tell its classes apart; some have two."""
    config: Any = getattr(tower, "pretrained_cfg", None) or {}
    found = config.get("classifier") or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _in(name: str, parts: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)
