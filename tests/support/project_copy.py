"""A copy of this project in a git repository of its own, with a demo that takes seconds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.paths import ROOT

SMALL = (
    "demo.train_pairs=64",
    "demo.valid_pairs=24",
    "demo.side=32",
    "model.image_size=32",
    "model.resize_size=36",
    "model.image_tower.options={layers: [1, 1, 1, 1], channels: [32, 32, 32, 32], norm_layer: groupnorm}",
    "model.text_tower.config={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}",
    "model.embed_dim=32",
    "train.batch_size=32",
    "train.micro_batch=16",
    "train.epochs=2",
    "train.valid_checks=0",
    "machine.loader_workers=0",
    "machine.checkpoint_steps=5",
    "evaluate.bootstrap=50",
    "validate.max_near_leaked_fraction=1.0",
    "register.gate.min_rsum=0",  # two epochs learn nothing, and the flows are what is tried
)


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def copy_project(folder: Path) -> Path:
    """The files that git knows or would know, committed once."""
    folder.mkdir(parents=True)
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "start")
    return folder


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")
