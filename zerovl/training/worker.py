"""One rank of a training run: `torchrun ... -m zerovl.training.worker [params.yaml]`, or in-process for one rank."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch

from zerovl import params as parameters
from zerovl.data.augment import TrainTransform
from zerovl.data.loader import TrainBatches, train_batches
from zerovl.data.manifest import Manifest
from zerovl.data.sampling import make_sampler
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
from zerovl.training.layout import choose
from zerovl.training.loop import Cadence, Outcome, StopRequest, Trainer
from zerovl.training.memory import memory_in_use, peak_memory
from zerovl.training.metrics import MetricsLog, write_report
from zerovl.training.optimiser import make_optimiser, make_schedule
from zerovl.training.options import prepare_model, set_float32_arithmetic
from zerovl.training.progress import Progress, start_block
from zerovl.training.ranks import Ranks, die_with_parent, join
from zerovl.training.sharding import ShardedGradientSum, ShardedGradScaler, is_sharded
from zerovl.training.state import TrainingState, full_weights
from zerovl.training.steps import DecoupledStep, PlainStep, Step
from zerovl.training.valid_check import make_checks
from zerovl.workspace import Workspace

PID_FOLDER = "ZEROVL_PID_FOLDER"  # set by `zerovl train`: where its ranks leave their process ids


def run(params: Params, workspace: Workspace) -> int:
    """Train to the end, or to a signal; returns the exit status."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers are forked after it was used
    stop = StopRequest()
    stop.install()
    with join(params.train.watchdog_minutes) as ranks:
        return _run(params, workspace, ranks, stop)


def _run(params: Params, workspace: Workspace, ranks: Ranks, stop: StopRequest) -> int:
    before = memory_in_use(ranks.device)
    manifest = Manifest.load(workspace.manifest)
    check_verdict(workspace, manifest)
    train = params.train
    check_ranks(params, ranks.world_size)
    sizes = {name: manifest.pairs(name, "train") for name in manifest.sources("train")}
    if not sizes:
        raise ZeroVLError("no source has training pairs; add a train split to a folder of data.raw")
    sampler = make_sampler(train.sampling, sizes, train.batch_size, train.epochs, train.seed)
    tokenizer = CaptionTokenizer(tokenizer_folder(params, workspace), params.model.max_tokens)
    start = starting_weights(params)
    description = fingerprint.describe(params, manifest, tokenizer.folder, start)
    name = fingerprint.digest(description)
    folder = workspace.runs / name

    with _locked(folder, ranks):
        model = build(params.model, tokenizer.vocab_size, train.seed)
        if start:
            bundle.load_weights(model, bundle.read_weights(start / bundle.WEIGHTS), str(start))
        prepare_model(model, train, ranks)
        set_float32_arithmetic(train)
        precision = Precision(train.precision, ranks.device)
        if is_sharded(model):
            precision.scaler = ShardedGradScaler(ranks, enabled=precision.scaler.is_enabled())
        state = TrainingState(model, make_optimiser(model, train), precision.scaler)
        layout = choose(params, model, precision, ranks, folder)
        checkpoints = Checkpoints(folder / "checkpoints", train.keep_checkpoints, train.keep_every, ranks)
        if ranks.is_first:
            checkpoints.clear_leftovers()
        _agree(ranks, max(checkpoints.steps(), default=0), name, folder)
        start_step = checkpoints.restore_newest(state, _say)
        if ranks.is_first:
            write_json(folder / "fingerprint.json", description)
            decision = _decision(start_step, sampler.steps, checkpoints.saved_on(start_step), ranks.world_size)
            print(start_block(params, manifest, model, ranks, sampler.steps, layout, decision, name), flush=True)
        log = MetricsLog(folder, start_step) if ranks.is_first else None
        trainer = Trainer(
            state=state,
            step=_make_step(train, model, ranks, precision, layout.split.kept_graphs),
            schedule=make_schedule(train, sampler.steps),
            mixup=Mixup(train.mixup, train.mixup_alpha, train.seed),
            precision=precision,
            ranks=ranks,
            checkpoints=checkpoints,
            cadence=Cadence(train.checkpoint_steps, train.checkpoint_minutes),
            clip_norm=train.clip_norm,
            checks=make_checks(params, manifest, workspace, model, tokenizer, sampler.steps),
            stop=stop,
            log=log,
        )
        outcome = Outcome("finished", start_step, True)
        if start_step < sampler.steps:
            batches = train_batches(
                manifest=manifest,
                shards=ShardReader(workspace.shards),
                sampler=sampler,
                tokenize=tokenizer,
                transform=TrainTransform(params.model.image_size, train.augment),
                augment=train.augment,
                micro_batch=layout.split.micro_batch,
                seed=train.seed,
                rank=ranks.rank,
                world_size=ranks.world_size,
                start_step=start_step,
                workers=train.loader_workers,
            )
            with batches, Progress(ranks, sampler.steps, start_step, train.batch_size) as progress:
                outcome = _guarded(trainer, batches, start_step, progress)
        if log:
            log.close()
        if outcome.state == "finished":
            with ranks.headway.during("writing the model"):
                weights = full_weights(model)  # all ranks take part
                if ranks.is_first:
                    bundle.save(model, tokenizer, workspace.model, weights)
                    used = {"peak_memory_bytes": peak_memory(ranks.device), "memory_before_bytes": before}
                    _report(params, workspace, name, sampler.steps, used, checkpoints.take_blocked())
    return _exit_status(outcome, stop, ranks, folder)


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


def _report(
    params: Params, workspace: Workspace, name: str, steps: int, used: dict[str, int], last_save_seconds: float
) -> None:
    summary = {"fingerprint": name, "steps": steps, "pairs_seen": steps * params.train.batch_size, **used}
    write_report(workspace.runs / name, workspace.training_report, summary, last_save_seconds)
    print(f"trained {steps} steps; model in {workspace.model}/, curves in {workspace.training_report}/")


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


def main() -> int:
    """Entry of every rank under torchrun; `kill -USR2` shows its Python stacks."""
    die_with_parent()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # `zerovl train` hands it on as soon as it knows this process
    rank = os.environ.get("RANK", "0")
    if folder := os.environ.get(PID_FOLDER):
        Path(folder, f"rank-{rank}").write_text(str(os.getpid()), encoding="utf-8")
    _say_restart(rank)
    try:
        status = run(parameters.load(sys.argv[1] if len(sys.argv) > 1 else "params.yaml"), Workspace())
    except SystemExit:
        status = exits.FAILED  # another rank says why
    except ZeroVLError as error:
        exits.leave_word(str(error))
        _say(f"zerovl train: {error}")
        status = exits.FAILED
    except Exception as error:
        status = _crashed(rank, error)
    if status:
        exits.leave(status)  # at once: threads of a broken group may never end
    return status


def _crashed(rank: str, error: Exception) -> int:
    if exits.peer_is_gone(error):
        reason = str(error).splitlines()[0]
        exits.leave_word(f"rank {rank} lost another rank: {reason}", consequence=True)
        return exits.LOST_PEER
    traceback.print_exc()
    exits.leave_word(f"rank {rank}: {type(error).__name__}: {error}")
    return exits.CRASHED


def _say_restart(rank: str) -> None:
    """Under `torchrun --max-restarts`, which starts ranks again without a word."""
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if attempt and rank == "0":
        allowed = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "?")
        _say(f"zerovl train: starts again from the last checkpoint (restart {attempt} of {allowed} on this node)")


if __name__ == "__main__":
    sys.exit(main())
