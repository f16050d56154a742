"""Turn the pickled weights of a Hugging Face folder into safetensors, which is all that training reads."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from zerovl.errors import ZeroVLError
from zerovl.files import sync_folder, usual_mode
from zerovl.model.weight_files import read_tensors

_PICKLED, _SAFE = "pytorch_model.bin", "model.safetensors"


def convert(folder: Path) -> None:
    """Write `model.safetensors` beside `pytorch_model.bin`, whole or not at all; the pickle stays as it is.

    Raises `ZeroVLError` where there is no pickle, it holds more than tensors, or safetensors are there already.
    """
    if not (folder / _PICKLED).is_file():
        raise ZeroVLError(f"{folder}: no {_PICKLED} in it; name the folder of a model of transformers")
    if (folder / _SAFE).exists():
        raise ZeroVLError(f"{folder}: {_SAFE} is there already; delete it to write it again")
    weights = read_tensors(folder / _PICKLED)
    aside = folder / f".{_SAFE}.part"
    # Tied weights share their memory in a pickle, which safetensors refuses.
    with usual_mode(aside):
        save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, aside, {"format": "pt"})
    aside.replace(folder / _SAFE)
    sync_folder(folder)
    print(f"{folder}/{_SAFE}: {len(weights)} tensors, from {_PICKLED}")
