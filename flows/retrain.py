"""The flow `retrain`: refreshes imported data and trains where something is new. `python -m flows.retrain --help`."""

from __future__ import annotations

import os
from typing import Any

from prefect import State, flow, runtime
from prefect.logging import get_run_logger
from prefect.states import Failed

from flows import command, endings, pipeline, stages
from flows.forms import After, Overrides, Recipe
from flows.progress import ProgressReporter
from flows.runtime import changes, failure_log, process
from flows.runtime.cancellation import Cancellable
from flows.runtime.checkout import STARTS, Checkout
from flows.settings import Settings, as_overrides
from flows.stores import open_registry
from zerovl.files import read_json
from zerovl.params import Params
from zerovl.registry import transfer
from zerovl.release import moved_away
from zerovl.workspace import Workspace
from zerovl.yaml_file import read_yaml


@flow(name="retrain")
def retrain(
    recipe: Recipe = "params.yaml",
    settings: Settings = [],  # noqa: B006, never changed; a form needs a list
    overrides: Overrides = [],  # noqa: B006, as above
    revision: str = "HEAD",
    after: After = "promote if better",
    from_production: bool = False,
    force: bool = False,
    reason: str = "",
) -> State[Any] | dict[str, Any] | None:
    """Refresh imported data (`dvc update`); end as "NothingNew", or train, pass the gate, promote or be refused.

    Args:
        recipe: params.yaml: as it stands at the revision; demo: the defaults; else a file of recipes/, or your own
        settings: keys of params.yaml with their values, chosen from a list and laid over the recipe
        overrides: the same as text, key=value each, laid over both
        revision: branch, tag or commit of code, parameters and data
        after: what becomes of the model: nothing, a version, or also the alias if the gate passes it
        from_production: start from the weights of the model in production, not from the towers' own
        force: train even where nothing is new
        reason: who or what asked for it, for the log
    """
    with Cancellable() as ended:
        failure_log.install()
        if reason:
            get_run_logger().info("asked for by: %s", reason)
        overrides = [*as_overrides(settings), *overrides]
        commit = pipeline.find_commit(revision)
        if problem := pipeline.problem_of(recipe, overrides, commit):
            return Failed(message=problem)
        checkout = pipeline.open_checkout(commit)
        params = pipeline.write_params(checkout, recipe, overrides, after)
        refresh(checkout)
        if unwatched := changes.unwatched_sources(checkout.path, params):
            repack(checkout, unwatched)
        if not force and (known := compare_with_releases(checkout, params)):
            checkout.discard()
            return endings.nothing_new(known, str(runtime.flow_run.id))
        if from_production and (override := fetch_production_model(checkout, params)):
            params = pipeline.write_params(checkout, recipe, [*overrides, override], after)
        release = pipeline.run_stages(checkout, params, after)
        return endings.refused(release) or endings.moved_away(release, str(runtime.flow_run.id)) or release
    return ended.state


@stages.stage_task("refresh", "Looks for new data where it was imported from", retries=3)
def refresh(checkout: Checkout) -> None:
    """Update imported data and commit what DVC then knows of them."""
    with ProgressReporter("refresh") as reporter:
        update_imports(checkout, reporter)
    checkout.commit(f"New data of run {checkout.name}")


def update_imports(checkout: Checkout, listener: process.Listener) -> None:
    """Run `dvc update` for everything that was imported; what is as it was, and in the cache, is not downloaded."""
    for path in changes.imports(checkout.path):
        if not changes.has_digests(read_yaml(checkout.path / path)):
            stages.run_dvc(checkout, ["update", "--no-download", path], listener)
            changes.take_over_digests(checkout.path, path)
        stages.run_dvc(checkout, ["update", path], listener)


@stages.stage_task("repack", "Reads sources again where DVC does not see whether they changed", retries=3)
def repack(checkout: Checkout, sources: list[str]) -> None:
    """Pack all sources whatever DVC has of them, so that the manifest tells whether they changed."""
    get_run_logger().info("packing %s to see whether it changed", ", ".join(sources))
    with ProgressReporter("prepare") as reporter:
        stages.write_code_digests(checkout, reporter)
        stages.run_dvc(checkout, ["repro", "--force", "--single-item", "prepare"], reporter)


@stages.stage_task("compare with releases", "Compares data, code and parameters with the releases before", retries=3)
def compare_with_releases(checkout: Checkout, settings: Params) -> str | None:
    """Return why there is nothing to do; None where there is something."""
    section = settings.register_
    registry = open_registry(checkout.path, section.store)
    versions = registry.versions(section.name)
    known = changes.made_before(checkout.path, settings, versions)
    if known is None:
        get_run_logger().info("going on: %s", changes.why_new(checkout.path, settings, versions))
        return None
    away = moved_away.find(registry, known, section.alias) if section.alias else None
    moves = registry.history(section.name, section.alias) if section.alias and not away else None
    if left := changes.unfinished(checkout.paths, known, moves):
        get_run_logger().info("nothing is new, but %s: going on", left)
        return None
    if changes.unwatched_sources(checkout.path, settings):
        digest = read_json(Workspace(checkout.path).manifest_file)["digest"]
        if digest != known.provenance.get("data_manifest"):
            return None
    same = f"data, code and parameters are those of {known.reference}, registered {known.created[:16]} UTC"
    return f"{same}; {away}" if away else same


@stages.stage_task("fetch production model", "Fetches the model in production", retries=3)
def fetch_production_model(checkout: Checkout, settings: Params) -> str | None:
    """Fetch the model in production to a folder named by its content, which the run's parameters then name.

    DVC keeps it like any data, so a release that started from another is made again wherever that is pulled.
    """
    section = settings.register_
    registry = open_registry(checkout.path, section.store)
    move = registry.current(section.name, section.alias or "production")
    if move is None:
        get_run_logger().warning("no model is in production yet: training starts from the towers' own weights")
        return None
    version = registry.version(section.name, move.version)
    folder = f"{STARTS}/{version.identity[:16]}"
    if not (checkout.path / folder).is_dir():
        # What an interrupted download leaves must not lie where a run commits.
        aside = checkout.paths.downloads / f"{checkout.name}-{version.identity[:16]}"
        if not aside.is_dir():
            transfer.pull(registry.store, version, aside)
        (checkout.path / STARTS).mkdir(exist_ok=True)
        os.replace(aside, checkout.path / folder)
    stages.run_dvc(checkout, ["add", folder], pipeline.Silent())
    get_run_logger().info("starting from %s", version.reference)
    return f"train.init_from={folder}"


if __name__ == "__main__":
    command.main(retrain, pipeline.check)
