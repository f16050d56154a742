"""What a run begins with on each rank: its model and optimiser, and the step that its checkpoints lead to."""

from __future__ import annotations

from collections import Counter

import torch

from zerovl.engine.average import make_average
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.model_options import freeze_first_blocks, prepare_model, set_float32_arithmetic
from zerovl.engine.optimiser import make_optimiser
from zerovl.engine.precision import Precision
from zerovl.engine.residual_stream import lower_streams
from zerovl.engine.sharding import ShardedGradScaler, is_sharded
from zerovl.engine.state import TrainingState
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.model.towers import build
from zerovl.objective.loss import LOSSES, start_bias
from zerovl.text_format import plural
from zerovl.training import fingerprint
from zerovl.training.run_spec import Run
from zerovl.training.weight_digests import model_digest


def make_state(run: Run) -> tuple[TrainingState, Precision, str]:
    """Return the model with its options on its device, its optimiser, the loss's scale, a digest of its weights."""
    train, ranks = run.params.train, run.ranks
    bias = start_bias(LOSSES[train.loss])
    model = build(run.params.model, run.spec.tokenizer.vocab_size, train.seed, bias)
    if run.spec.start:
        run.spec.start.load_into(model)
    weights = model_digest(model)
    freeze_first_blocks(model, train.fine_tuning)
    if run.params.model.image_tower.batch_norm == "frozen":
        model.freeze_batch_norm()
    if train.residual_stream == "low":
        lower_streams(model)
    prepare_model(model, train.freeze, run.params.machine, ranks, train.precision)
    set_float32_arithmetic(train)
    precision = Precision(train.precision, ranks.device)
    if is_sharded(model):
        precision.scaler = ShardedGradScaler(ranks, enabled=precision.scaler.is_enabled())
    average = make_average(model, train.ema_decay)
    return TrainingState(model, make_optimiser(model, train), precision.scaler, average), precision, weights


def resume(run: Run, checkpoints: Checkpoints, state: TrainingState, weights: str) -> int:
    """Load the newest whole checkpoint on all ranks, else the parent's; returns its step, 0 where there is none."""
    if run.ranks.is_first:
        checkpoints.clear_leftovers()
    check_ranks_agree(run, max(checkpoints.steps(), default=0), weights)
    step = checkpoints.restore_newest(state, logger().info)
    parent = run.spec.parent
    if not step and parent:
        parent.require("continue_from")
        checkpoints.restore_other(state, parent.path, parent.step)
        return parent.step
    return step


def check_ranks_agree(run: Run, newest: int, weights: str) -> None:
    """Raise `ZeroVLError` where ranks see other checkpoints, or another run; nodes that share no disk would not notice.

    Nor would they notice other `weights` (a digest): each rank builds the model itself.
    """
    asked = fingerprint.digest(fingerprint.without_weights(run.spec.description))
    mine = torch.tensor([[newest, *(int(text[:12], 16) for text in (asked, weights))]], device=run.ranks.device)
    everyone = run.ranks.collectives.gather(mine).cpu()  # (W, 3)
    if bool((everyone[:, :2] != everyone[0, :2]).any()):
        raise ZeroVLError(
            f"{run.folder}: ranks found different checkpoints, data or settings (steps {everyone[:, 0].tolist()}); "
            "let all nodes share runs/, data/ and params.yaml"
        )
    found = everyone[:, 2].tolist()
    common, _ = Counter(found).most_common(1)[0]
    if odd := [rank for rank, digest in enumerate(found) if digest != common]:
        raise ZeroVLError(
            f"{run.folder}: {plural(len(odd), 'rank')} ({', '.join(map(str, odd))}) of {len(found)} would start from "
            "other weights than the rest: give all nodes the same files of model.image_tower and model.text_tower, and "
            "the same versions of torch, timm and transformers"
        )
