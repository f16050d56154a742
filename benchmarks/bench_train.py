"""`zerovl train` end to end on one GPU: pairs/s, the wait for data, and the share of time that the GPU works.

    python -m benchmarks.bench_train --work FOLDER
    python -m benchmarks.bench_train --work FOLDER --smoke --out /dev/shm/train.json     # tiny, also on a CPU

Draws JPEGs of 512 pixels and about 61 KB, as crawls have them, packs them with `zerovl prepare`, then trains
ViT-B/16 at 224 and BERT-base, untrained, in bf16: decode, crop, tokens, both passes, the loss and the optimiser. The
first two steps are not counted. Rules over the data are not run: a GPU's image need not have Great Expectations.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from PIL import Image

from benchmarks.common import HERE, RESULTS, Results, rounded
from zerovl import params_file
from zerovl.device import uses_gpu
from zerovl.files import read_json, read_json_lines, write_json
from zerovl.workspace import Workspace

SHARD = 500  # pictures a tar
WARM_UP = 2
WORDS = [
    f"{first}{last}" for first in ("ba", "du", "ke", "lo", "mi", "pa", "ro", "su") for last in ("n", "la", "to", "x")
]
_BASE = [
    "model.image_tower={name: vit_base_patch16_224, pretrained: false, options: {}}",
    "model.text_tower.config={hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, "
    "intermediate_size: 3072, max_position_embeddings: 64}",
    "model.embed_dim=512",
    "model.image_size=224",
    "model.resize_size=256",
    "model.max_tokens=25",
    "train.precision=bf16",
]


@dataclass(frozen=True)
class Settings:
    pictures: int = 20_000
    side: int = 512
    batch: int = 4096
    micro_batch: int = 512
    steps: int = 16
    model: Sequence[str] = tuple(_BASE)
    variants: Sequence[tuple[str, Sequence[str]]] = (
        ("float32 streams", ()),
        ("low streams", ("train.residual_stream=low",)),
    )


SMOKE = Settings(
    pictures=160, side=64, batch=32, micro_batch=16, steps=4, model=(), variants=(("float32 streams", ()),)
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder, about 3 GB")
    parser.add_argument("--out", type=Path, default=RESULTS / "train.json", help="result file")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="loader processes")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, also on a CPU; give --out another file")
    options = parser.parse_args(arguments)
    if not uses_gpu() and not options.smoke:
        print("no GPU here: nothing is measured", file=sys.stderr)
        return 2
    settings = SMOKE if options.smoke else Settings()
    results = Results(options.out, asdict(settings) | {"workers": options.workers})
    workspace = Workspace(options.work.resolve())
    draw(workspace.root / "raw", settings)
    for name, changes in settings.variants:
        results.add(
            "train", name, trained(workspace, settings, [*changes, f"machine.loader_workers={options.workers}"])
        )
    return 0


def draw(raw: Path, settings: Settings) -> None:
    """Write the pictures as WebDataset tars, on all cores; nothing where they are there already."""
    folder = raw / "drawn"
    if folder.is_dir():
        return
    aside = raw / ".drawn"
    aside.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        jobs = [
            pool.submit(_draw_tar, aside / f"{number:05}.tar", number, count, settings.side)
            for number, count in enumerate(_counts(settings.pictures))
        ]
        for job in jobs:
            job.result()
    aside.rename(folder)


def _counts(pictures: int) -> list[int]:
    return [min(SHARD, pictures - start) for start in range(0, pictures, SHARD)]


def _draw_tar(path: Path, number: int, count: int, side: int) -> None:
    drawn, words = np.random.default_rng(number), random.Random(number)
    with tarfile.open(path, "w") as tar:
        for index in range(count):
            key = f"{number:05}{index:04}"
            for kind, content in (("jpg", picture(drawn, side)), ("txt", " ".join(words.choices(WORDS, k=9)).encode())):
                member = tarfile.TarInfo(f"{key}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def picture(drawn: np.random.Generator, side: int) -> bytes:
    """Return a JPEG: large soft patches of colour under noise, whose strength sets the size of the file."""
    patches = Image.fromarray(drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = drawn.normal(0, 5.5, (side, side, 1))
    pixels = np.clip(np.asarray(patches) + grain, 0, 255).astype(np.uint8)  # (H, W, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return file.getvalue()


def trained(workspace: Workspace, settings: Settings, changes: Sequence[str]) -> dict[str, float]:
    """Train, and return what the log and the GPU tell of the steps after the first ones."""
    passes = settings.steps * settings.batch / settings.pictures
    values = params_file.from_recipe(
        {},
        [
            f"data.raw={workspace.root / 'raw'}",
            *settings.model,
            "train.sampling=debiased",
            "train.mixup=coin",
            f"train.batch_size={settings.batch}",
            f"train.micro_batch={settings.micro_batch}",
            f"train.epochs={passes}",
            "train.valid_checks=0",
            "machine.checkpoint_steps=100000",
            "machine.checkpoint_minutes=1000",
            *changes,
        ],
        "the benchmark",
    )
    params_file.write(values, workspace.root / "params.yaml")
    if not workspace.manifest.is_dir():
        _zerovl(workspace, "prepare")
        digest = read_json(workspace.manifest_file)["digest"]
        workspace.validation_verdict.parent.mkdir(parents=True, exist_ok=True)
        write_json(workspace.validation_verdict, {"manifest_digest": digest, "passed": True})
    shutil.rmtree(workspace.runs, ignore_errors=True)
    with busy_share() as readings:
        _zerovl(workspace, "train")
    rows = read_json_lines(workspace.training_report / "metrics.jsonl")[WARM_UP:]
    seconds = [settings.batch / row["pairs_per_second"] for row in rows]
    waited = [row["data_seconds"] for row in rows]
    found = {
        "pairs_per_second": rounded(settings.batch / median(seconds)),
        "slowest": rounded(settings.batch / max(seconds)),
        "data_share": rounded(sum(waited) / sum(seconds)),
        "peak_gib": rounded(read_json(workspace.training_report / "metrics.json")["peak_memory_bytes"] / (1 << 30)),
    }
    steps_end = int(sum(seconds))  # readings, one a second; the end is writing the model
    if working := [share for share in readings if share > 0][-steps_end:]:
        found["gpu_busy"] = rounded(fmean(working) / 100)
    return found


@contextmanager
def busy_share() -> Iterator[list[float]]:
    """Collect what nvidia-smi says each second: percent of the time in which a kernel ran; nothing without a GPU."""
    readings: list[float] = []
    command = shutil.which("nvidia-smi")
    if command is None:
        yield readings
        return
    query = [command, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop=1"]
    process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout
    reader = threading.Thread(target=lambda: readings.extend(float(line) for line in lines if line.strip().isdigit()))
    reader.start()
    try:
        yield readings
    finally:
        process.terminate()
        process.wait()
        reader.join()


def _zerovl(workspace: Workspace, command: str) -> None:
    root = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, "-m", "zerovl.cli", command],
        cwd=workspace.root,
        env={**os.environ, "PYTHONPATH": root},
        check=True,
    )


if __name__ == "__main__":
    sys.exit(main())
