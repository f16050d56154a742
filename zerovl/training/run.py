"""A training run from its parameters to its bundle, on one of its ranks."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from zerovl.data.augment import TrainTransform
from zerovl.data.loader import TrainBatches, train_batches
from zerovl.data.manifest import Manifest
from zerovl.data.sampling import Sampler, make_sampler
from zerovl.data.shards import ShardReader
from zerovl.errors import ZeroVLError
from zerovl.files import write_json
from zerovl.model import bundle
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import build
from zerovl.objective.mixup import Mixup
from zerovl.params import Params, TrainParams
from zerovl.training import exits, fingerprint
from zerovl.training.checkpoints import Checkpoints
from zerovl.training.forward import Precision
from zerovl.training.inputs import check_verdict, starting_weights, tokenizer_folder
from zerovl.training.layout import Layout, choose
from zerovl.training.loop import Cadence, Outcome, StopRequest, Trainer
from zerovl.training.memory import memory_in_use, peak_memory
from zerovl.training.metrics import MetricsLog, write_report
from zerovl.training.optimiser import make_optimiser, make_schedule
from zerovl.training.options import prepare_model, set_float32_arithmetic
from zerovl.training.progress import Progress, start_block
from zerovl.training.ranks import Ranks
from zerovl.training.sharding import ShardedGradientSum, ShardedGradScaler, is_sharded
from zerovl.training.state import TrainingState, full_weights
from zerovl.training.steps import DecoupledStep, PlainStep, Step
from zerovl.training.valid_check import make_checks
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class Subject:
    """What a run trains on and starts from; its description gives the run its name."""

    manifest: Manifest
    sampler: Sampler
    tokenizer: CaptionTokenizer
    start: Path | None  # a bundle
    description: dict[str, Any]

    @property
    def name(self) -> str:
        return fingerprint.digest(self.description)


def train(params: Params, workspace: Workspace, ranks: Ranks, stop: StopRequest) -> int:
    """Train to the end, or until `stop` asks; returns the exit status. All ranks call it together."""
    memory_before = memory_in_use(ranks.device)
    check_ranks(params, ranks.world_size)
    subject = _subject(params, workspace)
    steps, folder = subject.sampler.steps, workspace.runs / subject.name
    with _locked(folder, ranks):
        state, precision = _state(params, subject, ranks)
        layout = choose(params, state.model, precision, ranks, folder)
        checkpoints = Checkpoints(folder / "checkpoints", params.train.keep_checkpoints, params.train.keep_every, ranks)
        start_step = _resume(checkpoints, state, ranks, subject.name)
        if ranks.is_first:
            write_json(folder / "fingerprint.json", subject.description)
            decision = _decision(start_step, steps, checkpoints.saved_on(start_step), ranks.world_size)
            block = start_block(params, subject.manifest, state.model, ranks, steps, layout, decision, subject.name)
            print(block, flush=True)
        log = MetricsLog(folder, start_step) if ranks.is_first else None
        outcome = Outcome("finished", start_step, True)
        if start_step < steps:
            trainer = Trainer(
                state=state,
                step=_make_step(params.train, state.model, ranks, precision, layout.split.kept_graphs),
                schedule=make_schedule(params.train, steps),
                mixup=Mixup(params.train.mixup, params.train.mixup_alpha, params.train.seed),
                precision=precision,
                ranks=ranks,
                checkpoints=checkpoints,
                cadence=Cadence(params.train.checkpoint_steps, params.train.checkpoint_minutes),
                clip_norm=params.train.clip_norm,
                checks=make_checks(
                    params,
                    subject.manifest,
                    workspace,
                    state.model,
                    subject.tokenizer,
                    steps,
                    alive=lambda: ranks.headway.mark("scoring validation pairs"),
                ),
                stop=stop,
                log=log,
            )
            batches = _batches(params, workspace, subject, layout, ranks, start_step)
            with batches, Progress(ranks, steps, start_step, params.train.batch_size) as progress:
                outcome = _guarded(trainer, batches, start_step, progress)
        if log:
            log.close()
        if outcome.state == "finished":
            with ranks.headway.during("writing the model"):
                _finish(params, workspace, subject, state.model, ranks, memory_before, checkpoints.take_blocked())
    return _exit_status(outcome, stop, ranks, folder)


def _subject(params: Params, workspace: Workspace) -> Subject:
    """Raises `ZeroVLError` for data that were not validated or have no training pairs."""
    manifest = Manifest.load(workspace.manifest)
    check_verdict(workspace, manifest)
    sizes = {name: manifest.pairs(name, "train") for name in manifest.sources("train")}
    if not sizes:
        raise ZeroVLError("no source has training pairs; add a train split to a folder of data.raw")
    section = params.train
    sampler = make_sampler(section.sampling, sizes, section.batch_size, section.epochs, section.seed)
    tokenizer = CaptionTokenizer(tokenizer_folder(params, workspace), params.model.max_tokens)
    start = starting_weights(params)
    return Subject(manifest, sampler, tokenizer, start, fingerprint.describe(params, manifest, tokenizer.folder, start))


def _state(params: Params, subject: Subject, ranks: Ranks) -> tuple[TrainingState, Precision]:
    """The model on its device with its options, its optimiser, and the scale of its loss."""
    section = params.train
    model = build(params.model, subject.tokenizer.vocab_size, section.seed)
    if subject.start:
        bundle.load_weights(model, bundle.read_weights(subject.start / bundle.WEIGHTS), str(subject.start))
    prepare_model(model, section, ranks)
    set_float32_arithmetic(section)
    precision = Precision(section.precision, ranks.device)
    if is_sharded(model):
        precision.scaler = ShardedGradScaler(ranks, enabled=precision.scaler.is_enabled())
    return TrainingState(model, make_optimiser(model, section), precision.scaler), precision


def _resume(checkpoints: Checkpoints, state: TrainingState, ranks: Ranks, name: str) -> int:
    """Load the newest whole checkpoint on all ranks; returns its step, 0 where there is none."""
    if ranks.is_first:
        checkpoints.clear_leftovers()
    _agree(ranks, max(checkpoints.steps(), default=0), name, checkpoints.folder.parent)
    return checkpoints.restore_newest(state, _say)


def _batches(
    params: Params, workspace: Workspace, subject: Subject, layout: Layout, ranks: Ranks, start_step: int
) -> TrainBatches:
    section = params.train
    return train_batches(
        manifest=subject.manifest,
        shards=ShardReader(workspace.shards),
        sampler=subject.sampler,
        tokenize=subject.tokenizer,
        transform=TrainTransform(params.model.image_size, section.augment),
        augment=section.augment,
        micro_batch=layout.split.micro_batch,
        seed=section.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
        start_step=start_step,
        workers=section.loader_workers,
    )


def _finish(
    params: Params,
    workspace: Workspace,
    subject: Subject,
    model: DualEncoder,
    ranks: Ranks,
    memory_before: int,
    last_save_seconds: float,
) -> None:
    """Write the bundle, then the report; a collective where the model is sharded."""
    weights = full_weights(model)
    if not ranks.is_first:
        return
    bundle.save(model, subject.tokenizer, workspace.model, weights)
    steps = subject.sampler.steps
    summary = {
        "fingerprint": subject.name,
        "steps": steps,
        "pairs_seen": steps * params.train.batch_size,
        "peak_memory_bytes": peak_memory(ranks.device),
        "memory_before_bytes": memory_before,
    }
    write_report(workspace.runs / subject.name, workspace.training_report, summary, last_save_seconds)
    print(f"trained {steps} steps; model in {workspace.model}/, curves in {workspace.training_report}/")


def _guarded(trainer: Trainer, batches: TrainBatches, start_step: int, progress: Progress) -> Outcome:
    """PyTorch reports a killed loader process from a signal handler, in the middle of anything."""
    try:
        return trainer.train(batches, start_step, progress)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ZeroVLError(
            f"a loader process died ({error}); run it again to go on from the last checkpoint. If memory ran out, "
            "lower train.loader_workers or train.batch_size"
        ) from None


def _agree(ranks: Ranks, newest: int, name: str, folder: Path) -> None:
    """All ranks must see the same checkpoints of the same run; nodes that share no disk would not notice."""
    mine = torch.tensor([[newest, int(name[:12], 16)]], device=ranks.device)
    everyone = ranks.collectives.gather(mine)  # (W, 2)
    if bool((everyone != everyone[0]).any()):
        raise ZeroVLError(
            f"{folder}: ranks found different checkpoints, data or settings (steps {everyone[:, 0].tolist()}); "
            "let all nodes share runs/, data/ and params.yaml"
        )


def _exit_status(outcome: Outcome, stop: StopRequest, ranks: Ranks, folder: Path) -> int:
    if outcome.state == "finished":
        return 0
    if ranks.is_first:
        kept = f"saved in {folder}/checkpoints" if outcome.saved else "NOT saved, see above"
        _say(f"interrupted by {stop.name or 'another rank'} after step {outcome.step}: {kept}; run it again to go on")
    return exits.INTERRUPTED


def _decision(start_step: int, steps: int, saved_on: int | None, world_size: int) -> str:
    if start_step >= steps:
        return "already trained, the model is written again from its last checkpoint"
    if start_step and saved_on not in (None, world_size):
        return (
            f"resumes after step {start_step}, saved on {saved_on} rank{'s' * (saved_on != 1)}, now {world_size}: "
            "the same pairs in the same order"
        )
    if start_step:
        return f"resumes after step {start_step}: a checkpoint with the same parameters, data and code is there"
    return "starts anew: no checkpoint with these parameters, data and code"


def _make_step(train: TrainParams, model: DualEncoder, ranks: Ranks, precision: Precision, kept_graphs: int) -> Step:
    gradients = ShardedGradientSum(model, ranks) if is_sharded(model) else None
    if train.step == "plain":
        return PlainStep(model, ranks, precision, train.seed, gradients)
    return DecoupledStep(model, ranks, precision, train.seed, gradients, kept_graphs)


def check_ranks(params: Params, world: int) -> None:
    """Raises `ZeroVLError` where the global batch does not divide over `world` ranks and their micro-batches."""
    size = params.train.batch_size
    train = params.train
    micro = 1 if train.step == "plain" or train.micro_batch == "auto" else train.micro_batch
    if size % (world * micro):
        raise ZeroVLError(
            f"train.batch_size {size} is not a multiple of ranks x micro_batch = {world} x {micro}; "
            f"set it to {max(1, size // (world * micro)) * world * micro}, or change train.ranks or train.micro_batch"
        )


@contextmanager
def _locked(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Only one gang trains a run: a second one is told so instead of mixing its checkpoints in."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+", encoding="utf-8") as file:
        refused = ranks.is_first and not _try_lock(file)
        if ranks.any(refused)[0]:
            if not ranks.is_first:
                raise SystemExit(2)  # rank 0 says why
            file.seek(0)
            raise ZeroVLError(f"{folder}: process {file.read().strip() or '?'} trains this run already; wait or end it")
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return True


def _say(text: str) -> None:
    print(text, file=sys.stderr)
