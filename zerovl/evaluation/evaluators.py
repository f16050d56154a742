"""List the evaluators by name and run them all.

A further one is a module with an `Evaluator` and its entry in `EVALUATORS`: `metrics.json`, the report, the model card,
the terminal and the gate (`register.gate.min_metrics`) take its metrics by the names that its table gives them.
"""

from __future__ import annotations

from collections.abc import Iterable

from zerovl.errors import ZeroVLError
from zerovl.evaluation import scores
from zerovl.evaluation.base import Evaluation, Evaluator
from zerovl.evaluation.classification.evaluator import Classification
from zerovl.evaluation.folds import Folds
from zerovl.evaluation.metrics import RETRIEVAL, Table
from zerovl.params import EvaluateParams


class Retrieval:
    """Finds captions for pictures and pictures for captions: R@1, 5 and 10 both ways, and their sum RSUM."""

    name = RETRIEVAL

    def evaluate(self, evaluation: Evaluation) -> Table:
        """Return the metrics of `evaluation.scores`."""
        settings = evaluation.settings
        return scores.table(evaluation.pool, evaluation.scores, settings.bootstrap, settings.seed)


EVALUATORS: dict[str, Evaluator] = {evaluator.name: evaluator for evaluator in (Retrieval(), Folds())}


def evaluators_of(settings: EvaluateParams) -> list[Evaluator]:
    """Return those of `EVALUATORS`, and one a set of `evaluate.classification`, by the set's name.

    Raises:
        ZeroVLError: a set cannot be used, or has the name of another evaluator.
    """
    if taken := [its.name for its in settings.classification if its.name in EVALUATORS]:
        raise ZeroVLError(f"evaluate.classification: {taken[0]} is the name of another evaluator; choose another one")
    return [*EVALUATORS.values(), *(Classification.of(its) for its in settings.classification)]


def run_all(evaluation: Evaluation, evaluators: Iterable[Evaluator]) -> dict[str, Table]:
    """Run evaluators; returns the tables by name, without those that the data have nothing for."""
    tables = {evaluator.name: evaluator.evaluate(evaluation) for evaluator in evaluators}
    return {name: table for name, table in tables.items() if table is not None}
