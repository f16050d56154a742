"""Say where a run cannot learn, before its first step, and where it has not, after its last one.

A run that ends without an error may have learned nothing. What is said goes to stderr, and with the model into
`run.json`, from which report, `zerovl summary` and model card take it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from zerovl.data.batches.visits import NOUNS
from zerovl.evaluation.metrics import HEADLINE, more_than_chance
from zerovl.params import Params, TrainParams, as_dict
from zerovl.text_format import amount, plural
from zerovl.training.periodic_evaluation import CHANCE, COLUMN, HIGH, LOW
from zerovl.training.run_spec import RunSpec

# Measured on the demo: 45 steps from random weights leave the loss where it was, and some hundreds do not.
STEPS_FROM_SCRATCH, STEPS_FROM_WEIGHTS = 200, 50
HARDLY_MOVED = 0.9  # of the loss of a model that knows nothing
AUTO = "`zerovl recipe auto` writes settings for data of this size"


def foreseen(params: Params, spec: RunSpec) -> list[str]:
    """Return what speaks against learning anything, each with its numbers and the fix; empty where nothing does."""
    train = params.train
    visits = sum(spec.visits.values())
    from_weights = spec.start is not None or spec.parent is not None or _pretrained(params)
    needed = STEPS_FROM_WEIGHTS if from_weights else STEPS_FROM_SCRATCH
    if spec.steps >= needed:
        return []
    epochs = math.ceil(needed * train.batch_size / visits)
    start = "weights that are there" if from_weights else "random weights"
    return [
        f"{plural(spec.steps, 'step')} ({visits:,} {NOUNS[train.epoch_of]} x {amount(train.epochs, 'epoch')} / "
        f"train.batch_size {train.batch_size}) from {start} are too few to learn; at least {needed} are needed. "
        f"Set train.epochs to {epochs} or more, or train.batch_size lower; {AUTO}"
    ]


def _pretrained(params: Params) -> bool:
    """Whether both towers begin with weights: one from random weights has to learn from nothing."""
    towers = (as_dict(params.model.image_tower), as_dict(params.model.text_tower))
    return all(tower["pretrained"] or tower.get("weights") for tower in towers)


def found(train: TrainParams, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why a run with these rows in its log has learned nothing; empty where it did, or where that is open."""
    return [*_loss_that_stayed(train, rows), *_score_of_chance(rows)]


def _loss_that_stayed(train: TrainParams, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if train.loss != "softmax" or not rows:  # of another loss it is not known what a model that knows nothing gets
        return
    last, knows_nothing = fmean(row["loss"] for row in tail(rows)), math.log(train.batch_size)
    if last > HARDLY_MOVED * knows_nothing:
        yield (
            f"the loss has hardly moved: it ends at {last:.2f}, and a model that knows nothing has log(batch_size "
            f"{train.batch_size}) = {knows_nothing:.2f}. Train longer (train.epochs), or change train.lr; {AUTO}"
        )


def _score_of_chance(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    row = next((row for row in reversed(rows) if LOW in row), None)
    if row is None:
        return
    if not row[LOW] > more_than_chance(row[CHANCE]):
        yield (
            f"the model is no better than chance on its sample of the validation pairs: {HEADLINE.label} "
            f"{row[COLUMN]:.1f} [{row[LOW]:.1f}, {row[HIGH]:.1f}], chance {row[CHANCE]:.1f}. Train longer, on more "
            f"pairs or from pretrained towers; {AUTO}"
        )


def tail(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the last twentieth of the rows, at least one, over which the final loss is taken."""
    return rows[-max(1, len(rows) // 20) :]
