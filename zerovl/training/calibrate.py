"""`zerovl plan --measure`: a few real steps of one rank on this machine, in a process of its own.

The real step, optimiser and precision on synthetic inputs of the right shapes; with W ranks planned,
the loss sees the W-fold columns that it would gather, and nothing is sent. Where data is prepared, the
loader is timed too, and captions have the length that its batches have. A process of its own starts
with the memory that training starts with.

Shapes: b local pairs, n micro-batches of m.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zerovl import params as parameters
from zerovl.data.augment import TrainTransform
from zerovl.data.loader import train_batches
from zerovl.data.manifest import Manifest
from zerovl.data.sampling import make_sampler
from zerovl.data.shards import ShardReader
from zerovl.errors import ZeroVLError
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import from_architecture
from zerovl.objective.targets import Targets
from zerovl.objective.tiled import contrastive_loss
from zerovl.params import Params
from zerovl.training.activations import Activations, measure, release
from zerovl.training.footprint import Split, footprint
from zerovl.training.forward import Precision
from zerovl.training.gradients import gradient_sum
from zerovl.training.imagined import as_trained
from zerovl.training.inputs import tokenizer_folder
from zerovl.training.layout import size_of
from zerovl.training.memory import memory_in_use, peak_memory
from zerovl.training.optimiser import make_optimiser
from zerovl.training.planned_model import planned_architecture
from zerovl.training.ranks import Ranks
from zerovl.training.steps import DecoupledStep, PlainStep
from zerovl.training.synthetic import make_inputs, make_mix, tower_pass
from zerovl.workspace import Workspace

_REPEATS = 5
_MICRO_BATCHES = 4  # pushed through in the longest step that is timed
_LOADER_SECONDS = 5.0
_LOSS_FLOPS = 5e12  # a larger loss is not run whole on the CPU


@dataclass(frozen=True)
class Calibration:
    """Seconds on this machine, for one rank of the planned ones."""

    device: str
    threads: int
    tokens: int  # of the longest caption of a micro-batch
    forward_twice_seconds: float  # a micro-batch without a kept graph
    kept_seconds: float  # a micro-batch with one, or of the plain step
    fixed_seconds: float  # the rest of a step: loss, optimiser
    unseen_bytes: int  # memory that the parts of the footprint do not name: libraries, workspaces of kernels
    loader_pairs_per_second: float | None

    def step_seconds(self, split: Split) -> float:
        """Of one step, without waiting for data or other ranks."""
        again = split.micro_batches - split.kept_graphs
        return self.fixed_seconds + again * self.forward_twice_seconds + split.kept_graphs * self.kept_seconds


def calibrate(params_path: str, split: Split, workspace: Workspace) -> Calibration:
    """Run the measurement in a child process; raises `ZeroVLError` with what it said where it fails."""
    threads = max(1, (os.cpu_count() or 1) // split.world_size)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    arguments = json.dumps({"params": params_path, "root": str(workspace.root), **asdict(split)})
    command = [sys.executable, "-m", "zerovl.training.calibrate", arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ZeroVLError(f"--measure: the steps failed:\n{done.stderr.strip()[-2000:]}")
    return Calibration(**json.loads(done.stdout.splitlines()[-1]))


def run(params: Params, split: Split, workspace: Workspace) -> Calibration:
    """Measure in this process, which should have done nothing else yet."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = memory_in_use(device)
    loader_rate, tokens = _loader(params, split, workspace)
    architecture, _ = planned_architecture(params, workspace)
    model = from_architecture(architecture)
    as_trained(model, params.train)
    model.to(device).train()
    precision = Precision(params.train.precision, device)
    optimiser = make_optimiser(model, params.train)
    run_towers = tower_pass(model, make_mix(params.train.mixup), precision, device, tokens)
    activations = measure(model, run_towers, device)
    micro_batches = min(split.micro_batches, _MICRO_BATCHES)
    kept = min(max(1, split.kept_graphs), micro_batches)
    steps = _Steps(params, model, precision, optimiser, split, tokens)
    times = _interleaved(
        lambda: steps(1, 0), lambda: steps(micro_batches, 0), lambda: steps(micro_batches, kept), device=device
    )
    forward_twice, once, rest = _costs(times, micro_batches, kept)
    unseen = peak_memory(device) - before - _tensors(params, model, activations, split, micro_batches, kept)
    release(device)
    timed = Split(split.world_size * split.micro_batch * micro_batches, split.world_size, split.micro_batch, 0)
    larger_loss = _loss_seconds(model, split) - _loss_seconds(model, timed) if timed.batch < split.batch else 0.0
    return Calibration(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"a CPU with {_threads()}",
        threads=torch.get_num_threads(),
        tokens=tokens,
        forward_twice_seconds=forward_twice,
        kept_seconds=once,
        fixed_seconds=max(0.0, rest + larger_loss),
        unseen_bytes=max(0, unseen),
        loader_pairs_per_second=loader_rate,
    )


def _costs(times: list[float], micro_batches: int, kept: int) -> tuple[float, float, float]:
    """Seconds of a micro-batch that goes forward twice, of one with a kept graph, and of the rest of a step.

    From steps with one micro-batch, with several, and with graphs kept. On a busy machine differences
    of times are rough: they stay within what can be (a forward pass is at most half of a micro-batch).
    """
    one, several, with_kept = times
    whole = several / micro_batches
    forward_twice = whole
    if micro_batches > 1:
        forward_twice = min(max((several - one) / (micro_batches - 1), 0.5 * whole), whole)
    forward = min(max(0.0, (several - with_kept) / kept), 0.5 * forward_twice)
    return forward_twice, forward_twice - forward, several - micro_batches * forward_twice


def _tensors(
    params: Params, model: DualEncoder, activations: Activations, split: Split, micro_batches: int, kept: int
) -> int:
    """Bytes that the timed steps should take: the larger of those with and without kept graphs."""
    params = params.model_copy(update={"train": params.train.model_copy(update={"valid_checks": 0})})
    batch = split.world_size * split.micro_batch * micro_batches
    size, kind = size_of(model), model.temperature.device.type
    return max(
        footprint(params, size, activations, Split(batch, split.world_size, split.micro_batch, graphs), kind).total
        for graphs in {0, 0 if params.train.step == "plain" else kept}
    )


def _threads() -> str:
    number = torch.get_num_threads()
    return f"{number} threads" if number > 1 else "1 thread"


class _Steps:
    """Whole training steps of a chosen number of micro-batches."""

    def __init__(
        self,
        params: Params,
        model: DualEncoder,
        precision: Precision,
        optimiser: torch.optim.Optimizer,
        split: Split,
        tokens: int,
    ) -> None:
        self._params, self._model, self._precision, self._optimiser = params, model, precision, optimiser
        self._ranks = Ranks(0, split.world_size, precision.device, _Repeated(split.world_size))
        self._gradients = gradient_sum(model, self._ranks.collectives)
        self._mix = make_mix(params.train.mixup)
        self._inputs = make_inputs(model, split.micro_batch, tokens)

    def __call__(self, micro_batches: int, kept: int) -> None:
        train = self._params.train
        shared = (self._model, self._ranks, self._precision, train.seed, self._gradients)
        step = PlainStep(*shared) if train.step == "plain" else DecoupledStep(*shared, kept_graphs=kept)
        self._optimiser.zero_grad(set_to_none=True)
        step([self._inputs] * micro_batches, self._mix, 0)
        self._precision.scaler.step(self._optimiser)
        self._precision.scaler.update()


class _Repeated:
    """W ranks that all hold what this one holds: right shapes, nothing sent."""

    rank = 0

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size

    def gather(self, local: Tensor) -> Tensor:
        return local.repeat(self.world_size, *[1] * (local.dim() - 1))

    def reduce_scatter(self, partial: Tensor) -> Tensor:
        return partial[: len(partial) // self.world_size].clone()

    def sum(self, local: Tensor) -> Tensor:
        return local

    def start_sum(self, local: Tensor) -> Callable[[], object]:
        return lambda: None


def _interleaved(*runs: Callable[[], None], device: torch.device) -> list[float]:
    """Median seconds of each, taken in turns after one round to warm up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for round_ in range(1 + _REPEATS):
        for run_, found in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run_()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_:
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in seconds]


def _loss_seconds(model: DualEncoder, split: Split) -> float:
    """Of forward and backward of the loss of a whole local batch; scaled up where that would take too long."""
    device = model.temperature.device
    width, local = model.architecture.embed_dim, split.local
    while device.type == "cpu" and 8.0 * local * local * split.world_size * width > _LOSS_FLOPS:
        local //= 2
    image, text = (torch.nn.functional.normalize(torch.randn(local, width, device=device)) for _ in range(2))

    def once() -> None:
        leaves = image.clone().requires_grad_(), text.clone().requires_grad_()
        ranks = _Repeated(split.world_size)
        contrastive_loss(*leaves, model.temperature.detach(), Targets(), ranks).backward()

    (seconds,) = _interleaved(once, device=device)
    return seconds * (split.local / local) ** 2


def _loader(params: Params, split: Split, workspace: Workspace) -> tuple[float | None, int]:
    """Pairs per second that the loader gives when nobody else works, and the longest captions; or no data."""
    if not (workspace.manifest / "manifest.json").is_file() or not (workspace.tokenizer / "source.json").is_file():
        return None, params.model.max_tokens
    train = params.train
    manifest = Manifest.load(workspace.manifest)
    sizes = {name: manifest.pairs(name, "train") for name in manifest.sources("train")}
    sampler = make_sampler(train.sampling, sizes, train.batch_size, train.epochs, train.seed)
    batches = train_batches(
        manifest=manifest,
        shards=ShardReader(workspace.shards),
        sampler=sampler,
        tokenize=CaptionTokenizer(tokenizer_folder(params, workspace), params.model.max_tokens),
        transform=TrainTransform(params.model.image_size, train.augment),
        augment=train.augment,
        micro_batch=split.micro_batch,
        seed=train.seed,
        rank=0,
        world_size=split.world_size,
        workers=train.loader_workers,
    )
    tokens, pairs, start = 1, 0, 0.0
    with batches:
        for batch in batches:
            tokens = max(tokens, *(part.input_ids.shape[1] for part in batch.micro_batches))
            if not start:  # the first one waits for the workers to begin
                start = time.perf_counter()
                continue
            pairs += split.local
            if time.perf_counter() - start > _LOADER_SECONDS:
                break
    return (pairs / (time.perf_counter() - start) if pairs else None), tokens


def main() -> int:
    """In the child: one JSON argument in, one line of JSON out."""
    values: dict[str, Any] = json.loads(sys.argv[1])
    try:
        params = parameters.load(values.pop("params"))
        workspace = Workspace(Path(values.pop("root")))
        print(json.dumps(asdict(run(params, Split(**values), workspace))))
    except ZeroVLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
