"""What a stream for the inputs is worth on one GPU, and what compiling and kept graphs are: with low streams, in bf16.

    python -m benchmarks.bench_transfer
    python -m benchmarks.bench_transfer --smoke --out /dev/shm/transfer.json     # tiny, also on a CPU

Towers, pairs and optimiser are those of `bench_gpu`, at 4,096 pairs in micro-batches of 512. Inputs are copied in the
computation's own stream, twice a step; in a stream of their own, where they stay for the second pass; or in such a
stream without the room to stay. The result file is written after each figure, and a run with the same machine, code and
settings goes on with what is missing or failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks import bench_gpu, gpu, kinds
from benchmarks.bench_gpu import Bench, Entry, Settings, attempt
from benchmarks.common import RESULTS, NotMeasured, Results, find_all
from benchmarks.towers import WORDS
from zerovl.device import own_device, uses_gpu
from zerovl.engine.transfer import NO_TRANSFER, ROOM, OwnStream, Transfer
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import MachineParams

SETTINGS = Settings(batch=4096, micro_batch=512, kept=(0, 2), rounds=5)
SMOKE = replace(bench_gpu.SMOKE, kept=(0, 2))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_steps.json", help="result file")
    parser.add_argument("--minutes", type=float, default=30, help="no new figure is begun after so many")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, also on a CPU; give --out another file")
    options = parser.parse_args(arguments)
    if not uses_gpu() and not options.smoke:
        print("no GPU here: nothing is measured", file=sys.stderr)
        return 2
    device, settings = own_device(), SMOKE if options.smoke else SETTINGS
    used = {name: asdict(settings)[name] for name in ("towers", "batch", "micro_batch", "kept", "rounds", "pool")}
    results = Results(options.out, used | {"words": {settings.towers: WORDS[settings.towers]}})
    results.resume()
    bench = Bench(results, settings, device, gpu.Deadline(options.minutes))
    try:
        for part in (eager, compiled):
            attempt(results, part.__name__, device, partial(part, bench))
    except gpu.MinutesAreUp:
        print(f"{options.minutes:g} minutes are up; the same command goes on from here")
    return results.status()


def transfers(device: torch.device) -> dict[str, Callable[[], Transfer]]:
    """Ways of inputs to the device; those with a stream raise `NotMeasured` without a GPU."""

    def own_stream(room: int) -> Transfer:
        if device.type != "cuda":
            raise NotMeasured("a stream needs a GPU")
        return OwnStream(device, room)

    return {
        "no stream": lambda: NO_TRANSFER,
        "own stream": partial(own_stream, ROOM),
        "own stream, no room": partial(own_stream, 0),
    }


def eager(bench: Bench) -> None:
    """In one piece, and the decoupled step with each way of its inputs."""
    model, settings = bench.model_of_low_streams(), bench.settings
    in_one_piece(bench, "eager", model)
    ways, missing = find_all(transfers(bench.device))
    for name, record in missing.items():
        bench.results.add("eager", f"{kinds.DGA}, {name}", record)
    entries = {}
    for name, way in ways.items():
        step = kinds.finders(model, bench.device, "bf16", 0, way)[kinds.DGA]()
        entries[f"{kinds.DGA}, {name}"] = Entry(kinds.DGA, step, settings.batch, settings.micro_batch)
    bench.compare("eager", model, entries, settings.rounds)


def compiled(bench: Bench) -> None:
    """In one piece, and decoupled by kept graphs, with inputs as training moves them."""
    model, settings = bench.model_of_low_streams(MachineParams(compile=True)), bench.settings
    in_one_piece(bench, "compiled", model)
    entries = {}
    for kept in settings.kept:
        step = bench.finders(model, kept)[kinds.KEPT]()
        entries[f"{kinds.KEPT}, {kept}"] = Entry(kinds.KEPT, step, settings.batch, settings.micro_batch)
    bench.compare("compiled", model, entries, settings.rounds)


def in_one_piece(bench: Bench, section: str, model: DualEncoder) -> None:
    step, pairs = bench.finders(model)[kinds.PLAIN](), bench.settings.micro_batch
    bench.compare(section, model, {kinds.PLAIN: Entry(kinds.PLAIN, step, pairs, pairs)}, bench.settings.rounds)


if __name__ == "__main__":
    sys.exit(main())
