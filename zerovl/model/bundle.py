"""Write and read a model on disk: `model.safetensors`, `config.json`, the tokenizer's files and digests. No pickles."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zerovl import bundle_digests
from zerovl.bundle_files import CONFIG, TOKENIZER, WEIGHTS
from zerovl.errors import ZeroVLError
from zerovl.files import usual_mode, write_json
from zerovl.model.architecture import load_architecture
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.tensor_differences import check_fits, shapes
from zerovl.model.text import CaptionTokenizer
from zerovl.shared_folder import make_folder


def save(
    model: DualEncoder, tokenizer: CaptionTokenizer, folder: Path, weights: dict[str, Tensor] | None = None
) -> None:
    """Write a bundle; `config.json` comes last, so a folder without it is not a bundle.

    `weights` are those of a model that holds only a part of them itself, whole and on the CPU.
    """
    make_folder(folder, folder)
    for name in (CONFIG, bundle_digests.FILE):
        (folder / name).unlink(missing_ok=True)
    if weights is None:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    aside = folder / f".{WEIGHTS}.part"
    with usual_mode(aside):
        save_file(weights, aside)
    aside.replace(folder / WEIGHTS)
    tokenizer.save(folder)
    its_files = {name: folder / name for name in (WEIGHTS, *TOKENIZER) if (folder / name).is_file()}
    aside = folder / f".{CONFIG}.part"
    write_json(aside, model.architecture.to_json())
    bundle_digests.write(folder, {CONFIG: aside, **its_files})
    aside.replace(folder / CONFIG)


def load_model(folder: Path) -> DualEncoder:
    """Return the model of a bundle on the CPU; raises `ZeroVLError` for anything missing, left over or damaged."""
    from zerovl.model.towers import to_be_filled  # and timm, which a text half does without

    model = to_be_filled(load_architecture(folder))
    load_weights(model, read_weights(folder / WEIGHTS), str(folder / WEIGHTS))
    return model


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name; raises `ZeroVLError` where it is missing or damaged."""
    try:
        weights: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise ZeroVLError(f"{path}: no such file; fetch the bundle again") from None
    except SafetensorError as error:
        raise ZeroVLError(f"{path}: damaged ({error}); fetch the bundle again") from None
    return weights


def load_weights(model: torch.nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Load weights strictly: a missing key, a left-over key or another shape is an error that names them."""
    check_fits(
        shapes(weights),
        shapes(model.state_dict()),
        f"{origin}: weights do not fit the architecture",
        "name the towers that the weights were trained with",
    )
    model.load_state_dict(weights)
