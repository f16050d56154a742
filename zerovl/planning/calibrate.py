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
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from zerovl import cores, heap, params_file
from zerovl.data.batches.arrangement import arrange_by
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.identities import identify_by
from zerovl.data.batches.loader import size_key_of, train_batches
from zerovl.data.batches.sampling import training_sampler
from zerovl.data.batches.sides import ImageSide, Pictures, PicturesAsStored
from zerovl.data.manifest import Manifest
from zerovl.data.open_shards import ShardFiles, shard_root
from zerovl.device import own_device
from zerovl.engine.frozen_features import training_image_size
from zerovl.engine.optimiser import make_optimiser
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.memory import memory_in_use, peak_memory
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import from_architecture
from zerovl.objective.loss import LOSSES
from zerovl.params import Params
from zerovl.planning.planned_model import planned_architecture
from zerovl.planning.timed_steps import Steps, costs, interleaved, loss_seconds
from zerovl.sizing.activations import Activations, measure, release
from zerovl.sizing.batch_layout import size_of
from zerovl.sizing.footprint import BatchLayout, Workload, footprint
from zerovl.sizing.shape_only_model import apply_train_options
from zerovl.sizing.synthetic import make_mix, tower_pass
from zerovl.text_format import plural
from zerovl.training.features import training_transform
from zerovl.training.inputs import tokenizer_folder
from zerovl.training.picture_route import gpu_problem
from zerovl.training.start import find_start
from zerovl.workspace import Workspace

_MICRO_BATCHES = 4  # pushed through in the longest step that is timed
_LOADER_SECONDS = 5.0


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

    def step_seconds(self, layout: BatchLayout) -> float:
        """Of one step, without waiting for data or other ranks."""
        again = layout.micro_batches - layout.kept_graphs
        return self.fixed_seconds + again * self.forward_twice_seconds + layout.kept_graphs * self.kept_seconds


def calibrate(params_path: str, layout: BatchLayout, workspace: Workspace) -> Calibration:
    """Run the measurement in a child process; raises `ZeroVLError` with what it said where it fails."""
    threads = max(1, cores.core_count() // layout.world_size)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    arguments = json.dumps({"params": params_path, "root": str(workspace.root), **asdict(layout)})
    command = [sys.executable, "-m", "zerovl.planning.calibrate", arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ZeroVLError(f"--measure: the steps failed:\n{done.stderr.strip()[-2000:]}")
    return Calibration(**json.loads(done.stdout.splitlines()[-1]))


def measure_here(params: Params, layout: BatchLayout, workspace: Workspace) -> Calibration:
    """Measure in this process, which should have done nothing else yet."""
    device = own_device()
    before = memory_in_use(device)
    loader_rate, tokens = _loader(params, layout, workspace, device)
    architecture, _ = planned_architecture(params, workspace)
    model = from_architecture(architecture)
    apply_train_options(model, params.train, params.machine.activation_checkpointing)
    model.to(device).train()
    precision = Precision(params.train.precision, device)
    optimiser = make_optimiser(model, params.train)
    side = training_image_size(params)
    run_towers = tower_pass(model, make_mix(params.train.mixup), precision, device, tokens, side=side)
    activations = measure(model, run_towers, device)
    micro_batches = min(layout.micro_batches, _MICRO_BATCHES)
    kept = min(max(1, layout.kept_graphs), micro_batches)
    steps = Steps(params, model, precision, optimiser, layout, tokens)
    times = interleaved(
        lambda: steps(1, 0), lambda: steps(micro_batches, 0), lambda: steps(micro_batches, kept), device=device
    )
    forward_twice, once, rest = costs(times, micro_batches, kept)
    unseen = peak_memory(device) - before - _tensors(params, model, activations, layout, micro_batches, kept)
    release(device)
    timed = BatchLayout(
        layout.world_size * layout.micro_batch * micro_batches, layout.world_size, layout.micro_batch, 0
    )
    loss, larger_loss = LOSSES[params.train.loss], 0.0
    if timed.batch < layout.batch:
        larger_loss = loss_seconds(loss, model, layout) - loss_seconds(loss, model, timed)
    return Calibration(
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"a CPU with {plural(torch.get_num_threads(), 'thread')}",
        threads=torch.get_num_threads(),
        tokens=tokens,
        forward_twice_seconds=forward_twice,
        kept_seconds=once,
        fixed_seconds=max(0.0, rest + larger_loss),
        unseen_bytes=max(0, unseen),
        loader_pairs_per_second=loader_rate,
    )


def _tensors(
    params: Params, model: DualEncoder, activations: Activations, layout: BatchLayout, micro_batches: int, kept: int
) -> int:
    """Bytes that the timed steps should take: the larger of those with and without kept graphs."""
    workload = replace(Workload.of(params, LOSSES[params.train.loss]), evaluated=False)
    batch = layout.world_size * layout.micro_batch * micro_batches
    size, kind = size_of(model), model.temperature.device.type
    return max(
        footprint(
            workload, size, activations, BatchLayout(batch, layout.world_size, layout.micro_batch, graphs), kind
        ).total
        for graphs in {0, 0 if params.train.step == "plain" else kept}
    )


def _loader(
    params: Params, layout: BatchLayout, workspace: Workspace, device: torch.device
) -> tuple[float | None, int]:
    """Pairs per second that the loader gives when nobody else works, and the longest captions; or no data.

    Of streamed pairs it is not measured: how fast they come is a matter of where they lie.
    """
    if params.train.reading == "streaming":
        return None, params.model.max_tokens
    if not workspace.manifest_file.is_file() or not workspace.tokenizer_source.is_file():
        return None, params.model.max_tokens
    train = params.train
    manifest = Manifest.load(workspace.manifest)
    sampler = training_sampler(train, manifest)
    files = ShardFiles.of_split(manifest, "train", shard_root(params.machine, workspace), workspace.root)
    tokenize = CaptionTokenizer(
        tokenizer_folder(params, workspace, find_start(params, workspace)), params.model.max_tokens
    )
    batches = train_batches(
        manifest=manifest,
        shards=files.reader([], None, workspace.root),
        sampler=sampler,
        tokenize=tokenize,
        images=_images(params, device),
        augment=train.augment,
        micro_batch=layout.micro_batch,
        seed=train.seed,
        rank=0,
        world_size=layout.world_size,
        workers=params.machine.loader_workers,
        identify=identify_by(train.equal_pairs, tokenize),
        arrange=arrange_by(train.pair_order, tokenize.special.pad),
        size_key=size_key_of(train.step),
        prefetch_bytes=params.machine.prefetch_bytes,
    )
    tokens, pairs, start = 1, 0, 0.0
    with batches:
        for batch in batches:
            tokens = max(tokens, *(part.input_ids.shape[1] for part in batch.micro_batches))
            if not start:  # the first one waits for the workers to begin
                start = time.perf_counter()
                continue
            pairs += layout.local
            if time.perf_counter() - start > _LOADER_SECONDS:
                break
    return (pairs / (time.perf_counter() - start) if pairs else None), tokens


def _images(params: Params, device: torch.device) -> ImageSide:
    """What the loader makes of pictures; one that a GPU decodes it only packs."""
    transform = TrainTransform(training_image_size(params), params.train.augment)
    if params.machine.decode_on == "gpu" and gpu_problem(training_transform(params), device) is None:
        return PicturesAsStored(transform)
    return Pictures(transform)


def main() -> int:
    """In the child: one JSON argument in, one line of JSON out."""
    heap.prepare_training()  # as the ranks do whose steps are foreseen
    values: dict[str, Any] = json.loads(sys.argv[1])
    try:
        params = params_file.load(values.pop("params"))
        workspace = Workspace(Path(values.pop("root")))
        print(json.dumps(asdict(measure_here(params, BatchLayout(**values), workspace))))
    except ZeroVLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
