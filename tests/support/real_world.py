"""A project with two small validation splits on disk and small real models, as the stages leave them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from zerovl import params_file
from zerovl.files import write_json
from zerovl.model import bundle
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import build
from zerovl.params import Params
from zerovl.stages import prepare
from zerovl.workspace import Workspace

PAIRS = 12  # a source
COLOURS = ["red", "green", "blue", "black", "orange", "purple", "grey", "brown"]
RECIPE = {
    "prepare": {"tokenizer_vocab": 80},
    "model": {
        "image_tower": {
            "name": "vit_tiny_patch16_224",
            "options": {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2},
        },
        "text_tower": {
            "config": {
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "max_position_embeddings": 32,
            }
        },
        "embed_dim": 16,
        "image_size": 32,
        "resize_size": 36,
    },
    "evaluate": {"bootstrap": 50, "gallery": 2, "batch_size": 8, "sample": 6},
}


def settings(root: Path, *overrides: str) -> Params:
    return params_file.from_recipe(RECIPE, [f"data.raw={root / 'raw'}", *overrides], "test")


def make_project(root: Path, sources: tuple[str, ...] = ("alpha", "beta"), first_id: int = 0) -> Workspace:
    """Shards, manifest, tokenizer and a passed verdict; other ids draw other pictures and words."""
    for source in sources:
        for split in ("train", "valid"):
            _write_split(root / "raw" / source, split, first_id + 100 * (split == "valid"))
    workspace = Workspace(root)
    manifest = prepare.run(settings(root), workspace)
    write_json(workspace.validation_report / "verdict.json", {"passed": True, "manifest_digest": manifest.digest})
    return workspace


def make_model(workspace: Workspace, seed: int) -> None:
    """Random weights; another seed is another model."""
    section = settings(workspace.root).model
    tokenizer = CaptionTokenizer(workspace.tokenizer, section.max_tokens)
    bundle.save(build(section, tokenizer.vocab_size, seed=seed), tokenizer, workspace.model)


def _write_split(folder: Path, split: str, first_id: int) -> None:
    (folder / split).mkdir(parents=True)
    with open(folder / f"{split}_anno.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "image_id", "caption", "caption_id"])
        for number in range(first_id, first_id + PAIRS):
            seed = np.random.default_rng([number, *folder.name.encode()])
            grid = seed.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(grid).resize((40, 40)).save(folder / split / f"{number}.jpg")
            words = " ".join(str(word) for word in seed.choice(COLOURS, 4))
            rows.writerow([f"{number}.jpg", number, f"{words} {number}", number])
