"""The flow `train`: the five stages, in a checkout of its own. `python -m flows.train --help`."""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.logging import get_run_logger
from prefect.states import Failed

from flows import command, pipeline
from flows.forms import After, Overrides, Recipe
from flows.runtime import changes, failure_log
from flows.runtime.cancellation import Cancellable
from flows.settings import Settings, as_overrides


@flow(name="train")
def train(
    recipe: Recipe = "params.yaml",
    settings: Settings = [],  # noqa: B006, never changed; a form needs a list
    overrides: Overrides = [],  # noqa: B006, as above
    revision: str = "HEAD",
    after: After = "promote if better",
) -> State[Any] | dict[str, Any] | None:
    """Prepare, validate, train, evaluate, register: what `dvc repro` does, recorded on the branch `runs/<name>`.

    A run with the parameters, data and code of an interrupted one goes on from its last checkpoint.

    Args:
        recipe: params.yaml: as it stands at the revision; demo: the defaults; else a file of recipes/, or your own
        settings: keys of params.yaml with their values, chosen from a list and laid over the recipe
        overrides: the same as text, key=value each, laid over both
        revision: branch, tag or commit of code, parameters and data
        after: what becomes of the model: nothing, a version, or also the alias if the gate passes it
    """
    with Cancellable() as ended:
        failure_log.install()
        overrides = [*as_overrides(settings), *overrides]
        commit = pipeline.find_commit(revision)
        if problem := pipeline.problem_of(recipe, overrides, commit):
            return Failed(message=problem)
        checkout = pipeline.open_checkout(commit)
        params = pipeline.write_params(checkout, recipe, overrides, after)
        if unwatched := changes.unwatched_sources(checkout.path, params):
            get_run_logger().warning(
                "%s: DVC does not see whether it changed; the flow retrain reads it again", ", ".join(unwatched)
            )
        return pipeline.run_stages(checkout, params, after)
    return ended.state


if __name__ == "__main__":
    command.main(train, pipeline.check)
