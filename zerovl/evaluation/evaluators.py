"""List the evaluators by name and run them all.

A further one is a module with an `Evaluator` and its entry in `EVALUATORS`: `metrics.json`, the report, the model card,
the terminal and the gate (`register.gate.min_metrics`) take its metrics by the names that its table gives them.
"""

from __future__ import annotations

from zerovl.evaluation import scores
from zerovl.evaluation.base import Evaluation, Evaluator
from zerovl.evaluation.metrics import RETRIEVAL, Table


class Retrieval:
    """Finds captions for pictures and pictures for captions: R@1, 5 and 10 both ways, and their sum RSUM."""

    name = RETRIEVAL

    def evaluate(self, evaluation: Evaluation) -> Table:
        """Return the metrics of `evaluation.scores`."""
        settings = evaluation.settings
        return scores.table(evaluation.pool, evaluation.scores, settings.bootstrap, settings.seed)


EVALUATORS: dict[str, Evaluator] = {evaluator.name: evaluator for evaluator in (Retrieval(),)}


def run_all(evaluation: Evaluation) -> dict[str, Table]:
    """Run every evaluator; returns the tables by name, without those that the data have nothing for."""
    tables = {name: evaluator.evaluate(evaluation) for name, evaluator in EVALUATORS.items()}
    return {name: table for name, table in tables.items() if table is not None}
