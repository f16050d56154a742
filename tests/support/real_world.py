"""A project with two small validation splits on disk and small real models, as the stages leave them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support import tiny_project
from zerovl import params_file
from zerovl.files import write_json
from zerovl.model import bundle
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import build
from zerovl.params import Params
from zerovl.stages import prepare
from zerovl.workspace import Workspace

PAIRS = 12  # a source
RECIPE = {
    "prepare": tiny_project.RECIPE["prepare"],
    "model": tiny_project.RECIPE["model"],
    "evaluate": {"bootstrap": 50, "gallery": 2, "batch_size": 8, "sample": 6},
}


def settings(root: Path, *overrides: str) -> Params:
    """Return the parameters of a project, with overrides as a user types them."""
    return params_file.from_recipe(RECIPE, [f"data.raw={root / 'raw'}", *overrides], "test")


def make_project(root: Path, sources: tuple[str, ...] = ("alpha", "beta"), first_id: int = 0) -> Workspace:
    """Shards, manifest, tokenizer and a passed verdict; other ids draw other pictures and words."""
    for source in sources:
        for split in ("train", "valid"):
            _write_split(root / "raw" / source, split, first_id + 100 * (split == "valid"))
    workspace = Workspace(root)
    manifest = prepare.run(settings(root), workspace)
    write_json(workspace.validation_verdict, {"passed": True, "manifest_digest": manifest.digest})
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
            words = " ".join(str(word) for word in seed.choice(tiny_project.COLOURS, 4))
            rows.writerow([f"{number}.jpg", number, f"{words} {number}", number])
