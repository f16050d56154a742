"""A training run from its parameters to its bundle, on one of its ranks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from zerovl.data.batches.arrangement import arrange_by
from zerovl.data.batches.features import StoredFeatures
from zerovl.data.batches.identities import identify_by
from zerovl.data.batches.loader import TrainBatches, size_key_of, train_batches
from zerovl.data.streams.places import Places
from zerovl.data.streams.schedule import StreamSchedule
from zerovl.distributed import exits
from zerovl.distributed.ranks import Ranks
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.determinism import set_determinism
from zerovl.engine.forward import FeatureDropout
from zerovl.engine.frozen_features import Side
from zerovl.engine.gradients import gradient_sum
from zerovl.engine.metrics_log import MetricsLog
from zerovl.engine.optimiser import make_schedule
from zerovl.engine.precision import Precision
from zerovl.engine.progress import Progress
from zerovl.engine.sharding import ShardedGradientSum, gathered_as, is_sharded
from zerovl.engine.state import TrainingState, full_weights
from zerovl.engine.steps import DecoupledStep, PlainStep, Step, StepContext
from zerovl.engine.trainer import Cadence, Outcome, StopRequest, Trainer
from zerovl.engine.transfer import transfer_to
from zerovl.errors import ZeroVLError
from zerovl.files import read_json_lines, write_json
from zerovl.log import logger
from zerovl.memory import memory_in_use, peak_memory
from zerovl.model import bundle
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.loss import LOSSES, Loss
from zerovl.objective.mixup import Mixup
from zerovl.params import Params, batch_problem
from zerovl.sizing.batch_layout import Sizing, choose
from zerovl.tracking.following import Senders, tracked
from zerovl.training import data_wait, learning, streaming
from zerovl.training.checkpoint_copy import checkpoint_copy
from zerovl.training.features import FeatureFolder, feature_folders, stored_features, training_transform
from zerovl.training.periodic_evaluation import make_periodic_evaluation
from zerovl.training.picture_route import PictureRoute, picture_route
from zerovl.training.report import add_to_report, write_report
from zerovl.training.run_lock import locked
from zerovl.training.run_spec import Run, make_spec
from zerovl.training.run_state import make_state, resume
from zerovl.training.start import TOKENIZER_FOLDER
from zerovl.training.start_block import resume_sentence, start_block
from zerovl.workspace import RUN_DESCRIPTION, RUN_LOG, Workspace


def train(params: Params, workspace: Workspace, ranks: Ranks, stop: StopRequest) -> int:
    """Train to the end, or until `stop` asks; returns the exit status. All ranks call it together."""
    memory_before = memory_in_use(ranks.device)
    check_ranks(params, ranks.world_size)
    set_determinism(params.machine)
    run = Run(params, workspace, ranks, make_spec(params, workspace))
    _ = run.shards  # raises before anything is computed
    copy = checkpoint_copy(run)
    with locked(run.folder, ranks):
        copy.fetch_newer()
        loss = LOSSES[params.train.loss]
        state, precision, weights = make_state(run)
        sizing = choose(params, state.model, loss, precision, ranks, run.folder)
        machine = params.machine
        checkpoints = Checkpoints(
            run.folder / "checkpoints",
            machine.keep_checkpoints,
            machine.keep_every,
            ranks,
            copy.offer,
            gathered_as(machine, params.train.precision, ranks),
        )
        start_step = resume(run, checkpoints, state, weights)
        places = streaming.places_of(run, checkpoints, start_step)
        folders = feature_folders(run, state.model)
        if ranks.is_first:
            _describe(run)
            decision = resume_sentence(run, start_step, checkpoints.saved_on(start_step), places)
            print(start_block(run, state.model, sizing, decision, folders), flush=True)
            _warn(learning.foreseen(params, run.spec))
        with _tracked(run) as senders:
            outcome = _train(run, state, loss, precision, sizing, checkpoints, folders, start_step, stop, places)
            if outcome.state == "finished":
                with ranks.activity.during("writing the model"):
                    _write_model(run, state)
                if ranks.is_first:
                    last = checkpoints.path(run.spec.steps)
                    _report(run, memory_before, checkpoints.take_blocked(), copy.counts(), last)
            if senders:
                senders.ended(outcome.state)
            status = _exit_status(run, outcome, stop)  # says what was saved before anything is waited for
            copy.finish()  # last: whoever does not wait for it has all the same
            if outcome.state == "finished" and ranks.is_first:
                add_to_report(workspace.training_report, copy.counts())
    return status


def _train(
    run: Run,
    state: TrainingState,
    loss: Loss,
    precision: Precision,
    sizing: Sizing,
    checkpoints: Checkpoints,
    folders: list[FeatureFolder],
    start_step: int,
    stop: StopRequest,
    places: Places | None,
) -> Outcome:
    """The steps that are left, with their log."""
    params, ranks, steps = run.params, run.ranks, run.spec.steps
    parent = run.spec.parent
    log = MetricsLog(run.folder, start_step, parent.run if parent else None) if ranks.is_first else None
    try:
        if start_step >= steps:
            return Outcome("finished", start_step, True)
        stored = stored_features(run, state.model, precision, folders, stop)
        if stored is None:
            return Outcome("interrupted", start_step, True)
        trainer = Trainer(
            state=state,
            step=_make_step(run, state.model, loss, precision, sizing.layout.kept_graphs),
            schedule=make_schedule(params.train, steps),
            mixup=Mixup(params.train.mixup, params.train.mixup_alpha, params.train.seed),
            precision=precision,
            ranks=ranks,
            checkpoints=checkpoints,
            cadence=Cadence(params.machine.checkpoint_steps, params.machine.checkpoint_minutes),
            clip_norm=params.train.clip_norm,
            evaluation=make_periodic_evaluation(run, state.model),
            stop=stop,
            log=log,
        )
        route = picture_route(params, ranks, "image" in stored)
        batches = _batches(run, sizing.layout.micro_batch, start_step, stored, places, route)
        try:
            with batches, Progress(ranks, steps, start_step, params.train.batch_size) as progress:
                return _guarded(trainer, batches, start_step, progress)
        finally:
            route.tell()  # after an error too: it may come from there
    finally:
        if log:
            log.close()


def _describe(run: Run) -> None:
    """What others need to go on from this run's checkpoints, written before the first one."""
    write_json(run.folder / RUN_DESCRIPTION, run.spec.description)
    if not (run.folder / TOKENIZER_FOLDER).is_dir():
        run.spec.tokenizer.copy(run.folder / TOKENIZER_FOLDER)


def _tracked(run: Run) -> AbstractContextManager[Senders | None]:
    """Tell the trackers of `machine.tracking` of the run, on rank 0."""
    if not run.ranks.is_first:
        return nullcontext()
    parent = run.spec.parent
    notes = {"data": run.spec.manifest.digest} | ({"goes_on_from": parent.reference} if parent else {})
    return tracked(run.params, run.folder, run.spec.steps, notes)


def _batches(
    run: Run,
    micro_batch: int,
    start_step: int,
    stored: dict[Side, StoredFeatures],
    places: Places | None,
    route: PictureRoute,
) -> TrainBatches:
    train = run.params.train
    arrange = arrange_by(train.pair_order, run.spec.tokenizer.special.pad)
    if isinstance(run.spec.sampler, StreamSchedule):
        return streaming.batches_of(run, places, micro_batch, start_step, training_transform(run.params), arrange)
    return train_batches(
        manifest=run.spec.manifest,
        shards=run.shards.reader(),
        sampler=run.spec.sampler,
        tokenize=run.spec.tokenizer,
        images=route.images,
        augment=train.augment,
        micro_batch=micro_batch,
        seed=train.seed,
        rank=run.ranks.rank,
        world_size=run.ranks.world_size,
        start_step=start_step,
        workers=run.params.machine.loader_workers,
        identify=identify_by(train.equal_pairs, run.spec.tokenizer),
        arrange=route.arranged(arrange),
        stored_images=stored.get("image"),
        stored_captions=stored.get("text"),
        ahead=run.shards.ahead(),
        size_key=size_key_of(train.step),
        prefetch_bytes=run.params.machine.prefetch_bytes,
    )


def _write_model(run: Run, state: TrainingState) -> None:
    """Write the bundle; a collective where the model is sharded."""
    with state.average.applied():
        weights = full_weights(state.model)  # in the model's own memory where that is the host's
        if run.ranks.is_first:
            bundle.save(state.model, run.spec.tokenizer, run.workspace.model, weights)


def _report(run: Run, memory_before: int, last_save_seconds: float, copies: dict[str, int], checkpoint: Path) -> None:
    """Write what the run came to, and say it; on rank 0. `copies` counts those of checkpoints, of which one is last."""
    workspace, spec = run.workspace, run.spec
    summary = {
        "fingerprint": spec.name,
        "steps": spec.steps,
        "pairs_seen": spec.steps * run.params.train.batch_size,
        "peak_memory_bytes": peak_memory(run.ranks.device),
        "memory_before_bytes": memory_before,
        **copies,
    }
    write_report(run.folder, workspace.training_report, summary, last_save_seconds)
    rows = read_json_lines(run.folder / RUN_LOG)
    unlearned = learning.found(run.params.train, rows)
    own = [row for row in rows if not spec.parent or row["step"] >= spec.parent.step]
    _warn([*unlearned, *data_wait.found(run.params, own)])
    warnings = [*(learning.foreseen(run.params, spec) if unlearned else ()), *unlearned]
    if spec.streams:
        told = streaming.write_report(run, checkpoint, spec.steps * run.params.train.batch_size)
        _warn(told)
        warnings += told
    origin = {key: spec.description[key] for key in ("parent", "weights") if key in spec.description}
    write_json(workspace.training_run, {"fingerprint": spec.name, **origin, "warnings": warnings})
    print(f"trained {spec.steps} steps; model in {workspace.model}/, curves in {workspace.training_report}/")


def _warn(texts: list[str]) -> None:
    for text in texts:
        logger().warning(text)


def _guarded(trainer: Trainer, batches: TrainBatches, start_step: int, progress: Progress) -> Outcome:
    """PyTorch reports a killed loader process from a signal handler, in the middle of anything."""
    try:
        return trainer.train(batches, start_step, progress)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ZeroVLError(
            f"a loader process died ({error}); run it again to go on from the last checkpoint. If memory ran out, "
            "lower machine.loader_workers or train.batch_size"
        ) from None


def _exit_status(run: Run, outcome: Outcome, stop: StopRequest) -> int:
    if outcome.state == "finished":
        return 0
    if run.ranks.is_first:
        kept = f"saved in {run.folder}/checkpoints" if outcome.saved else "NOT saved, see above"
        who = stop.name or "another rank"
        logger().info(f"interrupted by {who} after step {outcome.step}: {kept}; run it again to go on")
    return exits.INTERRUPTED


def _make_step(run: Run, model: DualEncoder, loss: Loss, precision: Precision, kept_graphs: int) -> Step:
    ranks, train = run.ranks, run.params.train
    gradients = ShardedGradientSum(model, ranks) if is_sharded(model) else gradient_sum(model, ranks.collectives)
    dropout = FeatureDropout(train.image_dropout, train.text_dropout)
    transfer = transfer_to(ranks.device)
    context = StepContext(model, ranks, precision, loss, train.seed, gradients, dropout, transfer)
    return PlainStep(context) if train.step == "plain" else DecoupledStep(context, kept_graphs)


def check_ranks(params: Params, world: int) -> None:
    """Raises `ZeroVLError` where the global batch does not divide over `world` ranks and their micro-batches."""
    if problem := batch_problem(params, world):
        raise ZeroVLError(problem)
