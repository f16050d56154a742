"""Training steps and losses on one GPU in bf16, against their peers: `make bench-gpu`.

    python -m benchmarks.bench_gpu --minutes 9     # again, to go on where it stopped
    python -m benchmarks.bench_gpu --minutes 2 --batch 4096     # a GPU that is borrowed for minutes
    python -m benchmarks.bench_gpu --smoke --out /dev/shm/gpu.json     # tiny, also on a CPU

ViT-B/16 at 224 and BERT-base at 25 tokens, untrained, on random uint8 pairs in pinned host memory. A
step is forward, loss, backward and fused AdamW. The parts come in order of importance, the result file
is written after each figure, and a run with the same machine, code and settings goes on with what is
missing or failed. Figures that do not fit into memory, and peers that are not installed, are said, not
skipped. What fails is said and leaves the others standing; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import gpu, gpu_loss, kinds
from benchmarks.common import RESULTS, Record, Results, find_all, measured, rounded, summary, surviving
from benchmarks.page import update_page
from benchmarks.towers import FORWARD_FLOPS, WORDS, MicroBatch, make, make_batch
from zerovl.device import own_device, uses_gpu
from zerovl.engine.model_options import prepare_model
from zerovl.engine.residual_stream import lower_streams
from zerovl.engine.steps import Step
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import MachineParams

MATRIX_RATE = 800e12  # bf16 FLOP/s that an H100 reaches in large products


@dataclass(frozen=True)
class Settings:
    towers: str = "base"
    batch: int = 16384
    micro_batches: tuple[int, ...] = (256, 512, 1024)
    micro_batch: int = 256  # of the parts that try one alone
    plain_batches: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    kept: tuple[int, ...] = (0, 2, 4)  # beside the default
    memory_batches: tuple[int, ...] = (1024, 4096, 16384, 65536)
    checkpointed: tuple[int, ...] = (1024, 4096)  # micro-batches with activation checkpointing
    rounds: int = 3
    pool: int = 4096  # distinct pairs; a larger batch repeats them


SMOKE = Settings(
    towers="tiny",
    batch=8,
    micro_batches=(2, 4),
    micro_batch=2,
    plain_batches=(2,),
    kept=(0,),
    memory_batches=(4, 8),
    checkpointed=(4,),
    rounds=1,
    pool=4,
)


@dataclass(frozen=True)
class Entry:
    """One line of a table."""

    kind: str
    step: Step
    pairs: int
    micro_batch: int

    @property
    def kept(self) -> int:
        """Micro-batches with kept graphs."""
        return kinds.kept_graphs(self.step)

    @property
    def passes(self) -> float:
        """Cost in forwards of the batch, where a backward is two."""
        micro_batches = max(1, self.pairs // self.micro_batch)
        return 3 if self.kind in kinds.WHOLE else 4 - min(self.kept, micro_batches) / micro_batches

    def record(self) -> Record:
        return {"kind": self.kind, "pairs": self.pairs, "micro_batch": self.micro_batch, "kept": self.kept}


class Bench:
    """What the parts share: the device, the model, the pairs, the results and the time that is left."""

    def __init__(self, results: Results, settings: Settings, device: torch.device, deadline: gpu.Deadline) -> None:
        self.results = results
        self.settings = settings
        self.device = device
        self.deadline = deadline
        (pool,) = make_batch(settings.towers, settings.pool, settings.pool)
        self.pool = pool.pinned() if device.type == "cuda" else pool

    def model(self, machine: MachineParams | None = None) -> DualEncoder:
        return self.prepared(make(self.settings.towers, self.device), machine)

    def model_of_low_streams(self, machine: MachineParams | None = None) -> DualEncoder:
        model = make(self.settings.towers, self.device)
        lower_streams(model)
        return self.prepared(model, machine)

    def prepared(self, model: DualEncoder, machine: MachineParams | None) -> DualEncoder:
        prepare_model(model, [], machine or MachineParams(), kinds.one_rank(self.device))
        return model

    def batch(self, pairs: int, micro_batch: int) -> list[MicroBatch]:
        """Views of the pool, over and over."""
        starts = [start % self.settings.pool for start in range(0, pairs, micro_batch)]
        return [MicroBatch(*(part[start : start + micro_batch] for part in self.pool.tensors())) for start in starts]

    def compare(self, section: str, model: DualEncoder, entries: dict[str, Entry], rounds: int) -> None:
        """Measure entries that the results lack: first their memory, then their time, interleaved."""
        missing = {name: entry for name, entry in entries.items() if not self.results.has(section, name)}
        if not missing:
            return
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
        prime(optimiser)
        calls: dict[str, Callable[[], object]] = {}
        peaks: dict[str, Record] = {}
        for name, entry in missing.items():
            self.deadline.check()
            call = partial(self._training_step, entry, model, optimiser)
            peaks[name] = measured(partial(gpu.memory, call, self.device))  # the first call: kernels are made here
            if "not_measured" in peaks[name]:
                self.results.add(section, name, {**entry.record(), **peaks[name]})
                gpu.free(self.device)
            else:
                calls[name] = call
        seconds, failed = surviving(calls, rounds, gpu.clock(self.device), warm_ups=0)
        for name, record in failed.items():
            self.results.add(section, name, {**missing[name].record(), **peaks[name], **record})
            gpu.free(self.device)
        for name, own in seconds.items():
            entry = missing[name]
            rate = entry.pairs / summary(own)["seconds"]
            share = rate * FORWARD_FLOPS * entry.passes / MATRIX_RATE
            speed = {"pairs_per_second": rounded(rate), "matrix_share": rounded(share)}
            self.results.add(section, name, {**entry.record(), **summary(own), **speed, **peaks[name]})

    def _training_step(self, entry: Entry, model: DualEncoder, optimiser: torch.optim.Optimizer) -> None:
        kinds.run_step(entry.step, model, self.batch(entry.pairs, entry.micro_batch))
        optimiser.step()

    def finders(self, model: DualEncoder, kept: int = 0) -> dict[str, Callable[[], Step]]:
        return kinds.finders(model, self.device, "bf16", kept)


def prime(optimiser: torch.optim.Optimizer) -> None:
    """Make the optimiser's moments, so that the first entry measured holds what the later ones do."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json", help="result file")
    parser.add_argument("--minutes", type=float, default=30, help="no new figure is begun after so many")
    parser.add_argument("--batch", type=int, default=Settings.batch, help="pairs of the large batch")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, also on a CPU; give --out another file")
    options = parser.parse_args(arguments)
    if not uses_gpu() and not options.smoke:
        print("no GPU here: nothing is measured, and the page keeps saying so", file=sys.stderr)
        return 2
    device = own_device()
    settings = SMOKE if options.smoke else Settings(batch=options.batch)
    results = Results(options.out, asdict(settings) | {"words": {settings.towers: WORDS[settings.towers]}})
    results.resume()
    losses = gpu_loss.SMOKE if options.smoke else gpu_loss.Settings()
    deadline = gpu.Deadline(options.minutes)
    try:
        attempt(results, "losses", device, lambda: gpu_loss.measure(results, losses, device, deadline))
        bench = Bench(results, settings, device, deadline)
        for part in (plain, decoupled, low_streams, kept_graphs, memory_by_batch, checkpointed, compiled):
            attempt(results, part.__name__, device, partial(part, bench))
    except gpu.MinutesAreUp:
        print(f"{options.minutes:g} minutes are up; the same command goes on from here")
    if not options.smoke:
        update_page()
    return results.status()


def attempt(results: Results, name: str, device: torch.device, part: Callable[[], None]) -> None:
    """What fails outside of a part's entries, such as a model that cannot be made, does not end the others."""

    def run() -> Record:
        gpu.free(device)  # in here, as a GPU that is in trouble refuses this too
        part()
        return {}

    if record := measured(run):
        results.add("parts", name, record | {"failed": True})


def plain(bench: Bench) -> None:
    """One pass, batch after batch until memory is out: the rate that the others are held against."""
    model = bench.model()
    for pairs in bench.settings.plain_batches:
        entries = _entries(bench, bench.finders(model), (kinds.PLAIN, kinds.OPEN_CLIP), pairs, pairs)
        bench.compare("plain", model, entries, bench.settings.rounds)


def decoupled(bench: Bench) -> None:
    """The large batch: ours and open_clip's accumulation, side by side."""
    model = bench.model()
    for micro_batch in bench.settings.micro_batches:
        finders = bench.finders(model)
        entries = _entries(bench, finders, (kinds.DGA, kinds.ACCUM), bench.settings.batch, micro_batch)
        bench.compare("large batch", model, entries, bench.settings.rounds)


def kept_graphs(bench: Bench) -> None:
    model, settings = bench.model(), bench.settings
    for kept in settings.kept:
        step = bench.finders(model, kept)[kinds.KEPT]()
        entry = Entry(kinds.KEPT, step, settings.batch, settings.micro_batch)
        bench.compare("large batch", model, {f"{entry.kind}, {entry.micro_batch}, {kept}": entry}, settings.rounds)


def low_streams(bench: Bench) -> None:
    """`train.residual_stream: low`: in one piece, and the large batch."""
    model, settings = bench.model_of_low_streams(), bench.settings
    finders = bench.finders(model)
    for pairs in settings.plain_batches:
        entries = _entries(bench, finders, (kinds.PLAIN,), pairs, pairs)
        bench.compare("low streams", model, entries, settings.rounds)
    for micro_batch in settings.micro_batches:
        entries = _entries(bench, finders, (kinds.DGA,), settings.batch, micro_batch)
        bench.compare("low streams", model, entries, settings.rounds)


def compiled(bench: Bench) -> None:
    """The same with both towers compiled; the first step of each takes a minute."""
    machine = MachineParams(compile=True)
    _compiled(bench, "low streams, compiled", bench.model_of_low_streams(machine), (kinds.DGA,))
    gpu.free(bench.device)
    _compiled(bench, "compiled", bench.model(machine), (kinds.DGA, kinds.ACCUM))


def _compiled(bench: Bench, section: str, model: DualEncoder, wanted: Sequence[str]) -> None:
    settings, finders = bench.settings, bench.finders(model)
    large = _entries(bench, finders, wanted, settings.batch, settings.micro_batch)
    bench.compare(section, model, large, settings.rounds)
    whole = _entries(bench, finders, (kinds.PLAIN,), settings.micro_batch, settings.micro_batch)
    bench.compare(section, model, whole, settings.rounds)


def memory_by_batch(bench: Bench) -> None:
    model, settings = bench.model(), bench.settings
    for kind in (kinds.DGA, kinds.ACCUM):
        for pairs in settings.memory_batches:
            entries = _entries(bench, bench.finders(model), (kind,), pairs, settings.micro_batch)
            bench.compare("memory", model, entries, rounds=1)


def checkpointed(bench: Bench) -> None:
    model, settings = bench.model(MachineParams(activation_checkpointing=True)), bench.settings
    for micro_batch in settings.checkpointed:
        entries = _entries(bench, bench.finders(model), (kinds.DGA,), settings.batch, micro_batch)
        bench.compare("checkpointing", model, entries, rounds=1)


def _entries(
    bench: Bench, finders: dict[str, Callable[[], Step]], wanted: Sequence[str], pairs: int, micro_batch: int
) -> dict[str, Entry]:
    """Named by what they vary; a missing peer is recorded once, in the part where it would stand first."""
    found, missing = find_all({kind: finders[kind] for kind in wanted})
    for kind, record in missing.items():
        if not bench.results.has("peers", kind):
            bench.results.add("peers", kind, record)
    return {f"{kind}, {pairs}, {micro_batch}": Entry(kind, step, pairs, micro_batch) for kind, step in found.items()}


if __name__ == "__main__":
    sys.exit(main())
