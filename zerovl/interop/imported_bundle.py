"""The bundle of a model that comes from elsewhere, with what a training that goes on from it needs.

Beside the model there is `text_tower/` (config and tokenizer) and `train.yaml`, a recipe that trains on from it:
`zerovl recipe MODEL/train.yaml data.raw=...`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from zerovl.errors import ZeroVLError
from zerovl.files import write_json
from zerovl.interop.base import check_absent
from zerovl.model import bundle
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.text import CaptionTokenizer
from zerovl.whole_folder import whole_folder
from zerovl.workspace import Workspace

TEXT_TOWER, RECIPE = "text_tower", "train.yaml"


def check_out(out: Path) -> None:
    """Raise `ZeroVLError` where `out` is there already, or is the model that `dvc repro` writes."""
    check_absent(out)
    if Path("dvc.yaml").is_file() and out.resolve() == Workspace().model.resolve():
        raise ZeroVLError(f"--out {out}: that is what `dvc repro` writes, and empties first; name another folder")


def write(model: DualEncoder, tokenizer: CaptionTokenizer, out: Path) -> None:
    """Write the bundle `out` with its recipe, whole or not at all."""
    with whole_folder(out) as aside:
        tokenizer.save(aside / TEXT_TOWER)
        write_json(aside / TEXT_TOWER / "config.json", model.architecture.text_config)
        (aside / RECIPE).write_text(yaml.safe_dump(_recipe(model.architecture, out), sort_keys=False), encoding="utf-8")
        bundle.save(model, tokenizer, aside)


def next_command(out: Path) -> str:
    """Return the command that makes `params.yaml` train on from the bundle `out`."""
    return f"zerovl recipe {out / RECIPE} data.raw=FOLDER"


def _recipe(architecture: Architecture, out: Path) -> dict[str, Any]:
    """What `params.yaml` says of this model."""
    pooling = architecture.pooling if architecture.pooling != "end" else "auto"
    loss = {} if architecture.logit_bias is None else {"loss": "sigmoid"}
    return {
        "prepare": {"tokenizer_vocab": 0},
        "model": {
            "image_tower": {"name": architecture.image_tower, "options": architecture.image_options},
            "text_tower": {"name": str(out / TEXT_TOWER), "config": {}, "pooling": pooling},
            "embed_dim": architecture.embed_dim,
            "temperature": min(max(architecture.temperature, 0.001), 0.5),
            "image_size": architecture.image_size,
            "resize_size": architecture.resize_size,
            "resize_mode": architecture.resize_mode,
            "interpolation": architecture.interpolation,
            "mean": list(architecture.mean),
            "std": list(architecture.std),
            "max_tokens": architecture.max_tokens,
        },
        "train": {"init_from": str(out), **loss},
    }
