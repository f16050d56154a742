"""A project folder with two small sources, prepared and validated, and parameters that train in seconds."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.support.fork_server import Forked, start_zerovl
from zerovl import params_file
from zerovl.files import write_json
from zerovl.params import Params
from zerovl.stages import prepare
from zerovl.workspace import Workspace

Process = Forked | subprocess.Popen[str]
TRAIN, VALID, BATCH = 48, 8, 16
COLOURS = ["red", "green", "blue", "black", "orange", "purple", "grey", "brown"]
RECIPE = {
    "data": {"raw": "raw"},
    "prepare": {"tokenizer_vocab": 80},
    "model": {
        "image_tower": {
            "name": "vit_tiny_patch16_224",
            "options": {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2},
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
        "learn_temperature": True,
        "temperature": 0.07,
        "image_size": 32,
        "resize_size": 36,
    },
    "train": {
        "batch_size": BATCH,
        "micro_batch": 4,
        "epochs": 12.0,
        "lr": 1e-3,
        "valid_checks": 2,
        "valid_pairs": 8,
    },
    "machine": {"loader_workers": 0, "checkpoint_steps": 3},
}


def recipe(*overrides: str) -> Params:
    return params_file.from_recipe(RECIPE, list(overrides), "tiny")


def make_project(root: Path, *overrides: str) -> Workspace:
    """Raw pictures, shards, manifest, tokenizer, a passed verdict and params.yaml under `root`."""
    for number, source in enumerate(("alpha", "beta")):
        for split, pairs in (("train", TRAIN), ("valid", VALID)):
            _write_split(root / "raw" / source, split, pairs, first_id=1000 * number + 500 * (split == "valid"))
    workspace = Workspace(root)
    os.environ["ZEROVL_WORKERS"] = "1"
    settings = recipe("data.raw=" + str(root / "raw"), *overrides)
    manifest = prepare.run(settings, workspace)
    write_json(workspace.validation_report / "verdict.json", {"passed": True, "manifest_digest": manifest.digest})
    params_file.write(settings, root / "params.yaml")
    return workspace


def _write_split(folder: Path, split: str, pairs: int, first_id: int) -> None:
    (folder / split).mkdir(parents=True)
    with open(folder / f"{split}_anno.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "image_id", "caption", "caption_id"])
        for number in range(first_id, first_id + pairs):
            colour = COLOURS[number % len(COLOURS)]
            image = Image.new("RGB", (40, 40), colour)
            image.paste("white", (number % 23, number % 19, number % 23 + 9, number % 19 + 14))
            image.save(folder / split / f"{number}.jpg")
            rows.writerow([f"{number}.jpg", number, f"a box on {colour} number {number % 10}", 2 * number])
            rows.writerow([f"{number}.jpg", number, f"{colour} with a white box", 2 * number + 1])


def copy_project(workspace: Workspace, root: Path) -> Workspace:
    """The same data under another root, with runs, model and reports of its own."""
    root.mkdir(parents=True)
    (root / "data").symlink_to(workspace.root / "data")
    (root / "reports").mkdir()
    (root / "reports" / "validation").symlink_to(workspace.validation_report)
    (root / "params.yaml").write_text((workspace.root / "params.yaml").read_text())
    return Workspace(root)


def set_params(workspace: Workspace, *overrides: str) -> None:
    params_file.write(recipe(*overrides), workspace.root / "params.yaml")


def start_training(workspace: Workspace) -> Forked:
    """`zerovl train`, forked from a process that has imported all it needs (`tests.support.fork_server`)."""
    return start_zerovl("train", cwd=workspace.root)


def start_command(workspace: Workspace) -> subprocess.Popen[str]:
    """`zerovl train` as one types it."""
    return subprocess.Popen(
        [sys.executable, "-m", "zerovl.cli", "train"],
        cwd=workspace.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(workspace: Workspace, start: Callable[[Workspace], Process] = start_training) -> str:
    """Train to the end; returns what was printed."""
    child = start(workspace)
    out, err = child.communicate(timeout=400)
    assert child.returncode == 0, out + err
    return out


def run_folder(workspace: Workspace) -> Path:
    (folder,) = workspace.runs.iterdir()
    return folder


def wait_for_step(workspace: Workspace, step: int, child: Process) -> None:
    """Wait until the log has the row of `step`."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        logs = list(workspace.runs.glob("*/metrics.jsonl"))
        if logs and logs[0].read_text().count("\n") > step:
            return
        assert child.poll() is None, f"training ended early: {child.communicate()}"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    raise AssertionError(f"no step {step} in time")
