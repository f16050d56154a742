"""Memory and time: what `zerovl plan --measure` says against what `zerovl train` then takes.

    python -m benchmarks.plan

Draws a small demo data set, then for each case plans and trains in turns, each as a process of its own.
Memory is the highest resident memory beyond that of the imports; time is pairs/s, the median over
the steps. Writes `benchmarks/results/plan.json` and the page's table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from statistics import median

from benchmarks.common import HERE, RESULTS, Results, zerovl
from benchmarks.page import update_page
from zerovl import params_file
from zerovl.files import read_json

DATA = ["demo.train_pairs=1200", "demo.valid_pairs=50", "machine.ranks=1", "train.valid_checks=0"]
STEPS = 16
THREADS = 1
WARM_UP = 3  # steps that are not counted
WIDE = "model.text_tower.config={hidden_size: 256, num_hidden_layers: 4, num_attention_heads: 4, \
intermediate_size: 1024, max_position_embeddings: 64}"
CASES = {
    "demo: 2 micro-batches of 64": [],
    "8 micro-batches of 64, 4 kept": ["train.batch_size=512", "machine.kept_graphs=4"],
    "plain, batch 256": ["train.step=plain", "train.batch_size=256"],
    "wider text tower, 3 micro-batches of 128": ["train.batch_size=384", "train.micro_batch=128", WIDE],
}


def main() -> int:
    arguments = _arguments()
    work = Path(arguments.work).resolve()
    _draw(work)
    results = Results(arguments.out, {"turns": arguments.turns, "threads": THREADS, "steps": STEPS})
    for name, overrides in CASES.items():
        batch = params_file.from_recipe({}, overrides, name).train.batch_size
        pairs = read_json(work / "data" / "manifest" / "manifest.json")["sources"]
        total = sum(source["train"]["pairs"] for source in pairs.values())
        found = [
            _once(work, [*DATA, *overrides, f"train.epochs={STEPS * batch / total}", f"train.seed={turn}"])
            for turn in range(arguments.turns)
        ]
        results.add("plan", name, {**_summed_up(found), "turns": found})
    update_page()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "plan.json")
    parser.add_argument("--work", default=str(HERE / "work" / "plan"), help="scratch folder")
    parser.add_argument("--turns", type=int, default=3, help="plan and train so many times; medians count")
    return parser.parse_args()


def _draw(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    params_file.write(params_file.from_recipe({}, DATA, "demo"), work / "params.yaml")
    if not (work / "reports" / "validation" / "verdict.json").is_file():
        for command in ("demo-data", "prepare", "validate"):
            _zerovl(work, command)


def _once(work: Path, overrides: list[str]) -> dict[str, float]:
    params_file.write(params_file.from_recipe({}, overrides, "demo"), work / "params.yaml")
    shutil.rmtree(work / "runs", ignore_errors=True)
    _zerovl(work, "plan", "--measure", "--json", "plan.json")
    plan = read_json(work / "plan.json")
    _zerovl(work, "train")
    trained = read_json(work / "reports" / "training" / "metrics.json")
    lines = (work / "reports" / "training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "planned_memory": plan["peak_memory"],
        "planned_tensors": plan["memory"]["total"],
        "memory": trained["peak_memory_bytes"] - trained["memory_before_bytes"],
        "planned_pairs_per_second": plan["measured"]["pairs_per_second"],
        "pairs_per_second": median(json.loads(line)["pairs_per_second"] for line in lines[WARM_UP:]),
    }


def _summed_up(found: list[dict[str, float]]) -> dict[str, float]:
    middle = {key: median(turn[key] for turn in found) for key in found[0]}
    return {
        **middle,
        "memory_ratio": round(middle["planned_memory"] / middle["memory"], 3),
        "speed_ratio": round(median(turn["planned_pairs_per_second"] / turn["pairs_per_second"] for turn in found), 3),
    }


def _zerovl(work: Path, *command: str) -> None:
    zerovl(work, *command, environment={**os.environ, "OMP_NUM_THREADS": str(THREADS)})


if __name__ == "__main__":
    sys.exit(main())
