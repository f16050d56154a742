"""The part that `train` and `retrain` share: a checkout with its parameters, and the stages in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.logging import get_run_logger

from flows import artifacts, stages
from flows.forms import After, Recipe, recipe_file
from flows.outbox import outbox
from flows.runtime import checkout as checkouts
from flows.runtime import code_digests, process, pushing, switches
from flows.runtime.checkout import Checkout
from flows.runtime.git import CheckoutError, git
from flows.runtime.kept_reports import outcome
from flows.runtime.liveness import follow_worker
from flows.runtime.paths import Paths
from flows.stores import open_registry
from zerovl import params_file
from zerovl.commands import dvc_locks
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.registry.records import Version
from zerovl.release.record import read_release
from zerovl.workspace import Workspace
from zerovl.yaml_file import read_yaml, yaml_mapping


class Silent:
    """Hears a short command whose output is of no interest unless it fails."""

    def line(self, text: str) -> None:
        """Drop the line; the message of a failure has the last ones."""

    def bar(self, bar: process.Bar) -> None:
        """Drop the bar."""


def check(recipe: Recipe, overrides: Sequence[str], revision: str, **_others: object) -> None:
    """Raise where the parameters of a run cannot be right: `ZeroVLError`, or `CheckoutError` for its revision.

    The run looks again: its remote may have gone on, and it does not come from a command line alone.
    """
    commit, warning = _fetched(revision)
    if warning:
        print(warning, file=sys.stderr)
    if problem := problem_of(recipe, overrides, commit):
        raise ZeroVLError(problem)


def find_commit(revision: str) -> str:
    """Return the commit of a revision, for which the remote is asked first; HEAD is what is checked out here.

    Raises:
        CheckoutError: git knows no such revision.
    """
    commit, warning = _fetched(revision)
    if warning:
        get_run_logger().warning(warning)
    return commit


def _fetched(revision: str) -> tuple[str, str]:
    """Return the commit of a revision, and why the remote could not be asked for it, "" where it was."""
    warning = checkouts.fetch(Paths.here()) if revision != "HEAD" else ""
    return checkouts.resolve(Paths.here(), revision), warning


def problem_of(recipe: Recipe, overrides: Sequence[str], commit: str) -> str:
    """Return what is wrong with the parameters of a run that is to begin, "" where nothing is.

    Keys are those of the code that is checked out here; of another commit's parameters its own code decides.
    """
    paths, file = Paths.here(), recipe_file(recipe)
    if commit != git(paths.root, "rev-parse", "HEAD"):
        return _problem_elsewhere(file, overrides, commit)
    try:
        changes = {} if file == "demo" else _read_recipe(file, paths)
        params_file.from_recipe(changes, list(overrides), file)
    except ZeroVLError as error:
        return str(error)
    return ""


def _problem_elsewhere(file: str, overrides: Sequence[str], commit: str) -> str:
    """As `problem_of`, by the code of the commit, in a copy of its files that leaves no worktree and no branch."""
    with code_digests.exported(Paths.here().root, commit) as there:
        done = code_digests.run_there(there, _recipe_words(file, overrides, there))
    return f"commit {commit[:12]}: {done.stderr.strip()}" if done.returncode else ""


def _recipe_words(file: str, overrides: Sequence[str], folder: Path) -> list[str]:
    """Return what Python is to run to write params.yaml in `folder`, by the code there."""
    if file != "demo" and not (folder / file).is_file():
        file = str(Paths.here().root / file)  # one's own, which git does not know
    return ["-m", "zerovl.cli", "recipe", "--", file, *overrides]


def _read_recipe(file: str, paths: Paths) -> dict[str, Any]:
    """Read a recipe as the commit has it, as the run will; else the file itself."""
    try:
        return yaml_mapping(git(paths.root, "show", f"HEAD:./{file}"), file)
    except CheckoutError:
        return read_yaml(paths.root / file)


def open_checkout(commit: str) -> Checkout:
    """Return the checkout of the flow run that calls; made, or found where the run is tried again."""
    follow_worker(runtime.flow_run.id)
    switches.check()  # at the end of a training is too late
    checkout = checkouts.make(Paths.here(), runtime.flow_run.name, str(runtime.flow_run.id), commit)
    lock_checkout(checkout)
    get_run_logger().info("checkout %s, branch %s, at %s", checkout.path, checkout.branch, checkout.head()[:12])
    return checkout


def lock_checkout(checkout: Checkout) -> None:
    """Let DVC lock a run's checkout on a file system without locks too, and log what that takes."""
    if warning := dvc_locks.use_links_where_needed(checkout.path):
        get_run_logger().warning(warning)


def write_params(checkout: Checkout, recipe: Recipe, overrides: Sequence[str], after: After) -> Params:
    """Write and commit the run's params.yaml, so that a release names a commit that has its parameters."""
    alias = [] if after == "promote if better" else ["register.alias=''"]
    command = [sys.executable, *_recipe_words(recipe_file(recipe), [*overrides, *alias], checkout.path)]
    process.run(command, checkout.path, checkout.environment, Silent())
    if after != "nothing" and params_file.load(checkout.path / "params.yaml").register_.when == "asked":
        # The form asks. Not by the first command: the code of an older revision does not know the key.
        process.run([*command, "register.when=always"], checkout.path, checkout.environment, Silent())
    checkout.commit(f"Parameters of run {checkout.name}")
    settings = params_file.load(checkout.path / "params.yaml")
    checkout.require_raw(settings.data)
    checkout.share_store(settings.register_.store)
    return settings


def run_stages(checkout: Checkout, settings: Params, after: After) -> dict[str, Any] | None:
    """Run all stages, show pages, commit and push; returns `release.json`, None where nothing was registered."""
    with outbox(checkout.kept_reports):
        return _run_stages(checkout, settings, after)


def _run_stages(checkout: Checkout, settings: Params, after: After) -> dict[str, Any] | None:
    workspace = Workspace(checkout.path)
    stages.prepare(checkout, checkout.start_file(settings.train.init_from))
    stages.validate(checkout)
    stages.train(checkout)
    stages.evaluate(checkout)
    before = in_production(checkout, settings)
    if after != "nothing":
        stages.register(checkout)
    stages.show([artifacts.summary(workspace, checkout.name, before)])
    stages.show(artifacts.links(checkout.keep_reports()))
    stages.commit_run(checkout, f"Run {checkout.name}: {outcome(workspace.release.parent)}")
    stages.push_data(checkout)
    _push_branch(checkout)
    release = read_release(workspace.release)
    checkout.remove()
    return release


@stages.stage_task("look up production", "Reads the scores of the model that has the alias", retries=3)
def in_production(checkout: Checkout, settings: Params) -> Version | None:
    """Return what holds the alias before this run, production's where the run is to move none; None without one."""
    section = settings.register_
    registry = open_registry(checkout.path, section.store)
    move = registry.current(section.name, section.alias or "production")
    return registry.version(section.name, move.version) if move else None


def _push_branch(checkout: Checkout) -> None:
    """Push the branch where that is wanted; a remote that takes no push does not fail the run: all is local."""
    remote = pushing.remote(checkout.paths)
    if remote is None:
        get_run_logger().info(pushing.sentence(checkout.paths))
        return
    state = stages.push_branch(checkout, remote, return_state=True)
    if state.is_failed():
        get_run_logger().warning("branch %s stays on this machine: %s", checkout.branch, state.message)
