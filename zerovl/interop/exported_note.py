"""What an export notes of the model that it came from, so that an import of it is that model again.

Other libraries have no place for the start of a temperature or of a bias, keep a temperature as a logarithm, and write
the config of a text tower in their own way. All of that enters `Encoder.digest`, which tells whether an index is of a
model. The note is believed where all that other libraries do keep is as it says, and where it gives the digest that it
names together with the weights that are there: a folder that was trained on or edited since is read as any other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.interop.imported import Imported
from zerovl.log import logger
from zerovl.model.architecture import Architecture
from zerovl.model.encoder import Encoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.text_encoder import digest_of

FILE = "zerovl_model.json"
_STARTS = ("temperature", "learn_temperature", "logit_bias")
_WRITTEN_AGAIN = ("_name_or_path", "architectures", "dtype", "transformers_version")  # of a text tower's config
_ROUNDING = 1e-6  # of a temperature that went through a logarithm, as a share of it


def write(encoder: Encoder, folder: Path) -> None:
    """Write the note on a model into the folder of its export."""
    noted = {
        "digest": encoder.digest,
        "temperature": encoder.temperature,
        "architecture": encoder.model.architecture.to_json(),
    }
    write_json(folder / FILE, noted)


def as_exported(found: Imported, tokenizer: CaptionTokenizer, folder: Path) -> Imported:
    """Return the model that a folder was exported from, or what was `found` in it where it is not that model."""
    file = folder / FILE
    if not file.is_file():
        return found
    try:
        noted = read_json(file)
        architecture = Architecture.from_json(noted["architecture"], str(file))
        temperature, digest = torch.tensor(float(noted["temperature"])), noted["digest"]
    except (ZeroVLError, KeyError, TypeError, ValueError) as error:
        logger().warning(f"{file}: not read ({error}), so the model has another digest than the one that was exported")
        return found
    read = found.weights["temperature"]
    weights = found.weights | {"temperature": temperature}
    same = torch.allclose(read, temperature.to(read.dtype), rtol=_ROUNDING, atol=0.0)
    if (
        same
        and _kept(architecture) == _kept(found.architecture)
        and digest_of(architecture, tokenizer, weights) == digest
    ):
        return replace(found, architecture=architecture, weights=weights)
    logger().info(f"{folder}: not the model that it was exported from, so it is read as any other folder")
    return found


def _kept(architecture: Architecture) -> dict[str, Any]:
    """Return what a folder of another library has of an architecture; ids of tokens are those of the tokenizer."""
    values = json.loads(json.dumps(asdict(architecture)))  # numbers as keys are texts in a file
    text = values.pop("text_config").items()
    kept = {name: value for name, value in values.items() if name not in _STARTS}
    kept["image_tower"] = architecture.image_tower.rpartition(":")[2]  # without where it was fetched from
    kept["text_config"] = {
        name: value for name, value in text if name not in _WRITTEN_AGAIN and not name.endswith("_token_id")
    }
    return kept
