"""One task a DVC stage: runs it as a child process, tells its log and progress, shows what it made."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flows import artifacts, outbox
from flows.outbox import Page
from flows.progress import ProgressReporter
from flows.runtime import process, tags
from flows.runtime.checkout import Checkout
from flows.runtime.process import Patience
from flows.runtime.switches import GIT_TAGS
from flows.runtime.turn import devices_to_hold, hold_turn
from zerovl import s3
from zerovl.commands import dvc_locks
from zerovl.release.record import read_release
from zerovl.workspace import Workspace
from zerovl.yaml_file import read_yaml

RETRY_VARIABLE = "ZEROVL_RETRY_SECONDS"
RETRY_SECONDS = "5 20 60"  # before another attempt where input or output failed


def stage_task(name: str, text: str, retries: int = 0) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator of a Prefect task without a cache of its own: what is up to date is DVC's to know."""
    delays = [float(seconds) for seconds in os.environ.get(RETRY_VARIABLE, RETRY_SECONDS).split()]
    return task(
        name=name,
        task_run_name=name,
        description=text,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=retries,
        retry_delay_seconds=delays[:retries] or None,
    )


@stage_task("prepare", "Fetches the raw data and packs it into shards", retries=3)
def prepare(checkout: Checkout, start: str | None = None) -> None:
    """Make or fetch data and tokenizer, the model to start from, and what the stages after it compare code with."""
    # Not `-s`: what lies before `prepare` is the stage `code`, whose files all stages need, and the data itself,
    # drawn, imported or in the cache or a remote.
    with ProgressReporter("prepare") as reporter:
        run_dvc(checkout, ["repro", "--pull", "prepare"], reporter)
        if start:  # the model to start from
            run_dvc(checkout, ["pull" if checkout.has_dvc_remote() else "checkout", start], reporter)


@stage_task("validate", "Checks the data against the rules of params.yaml")
def validate(checkout: Checkout) -> None:
    """Check the data; the page of rules is shown of broken data above all."""
    with ProgressReporter("validate") as reporter:
        try:
            run_dvc(checkout, ["repro", "-s", "validate"], reporter)
        finally:
            if Workspace(checkout.path).validation_verdict.is_file():
                show(artifacts.validation(Workspace(checkout.path)))


@stage_task("train", "Trains, or goes on with an interrupted run of the same parameters, data and code")
def train(checkout: Checkout) -> None:
    """Train, or resume the interrupted run of the same parameters, data and code."""
    _in_turn(checkout, "train", artifacts.training, Patience.of_training())


@stage_task("evaluate", "Scores the model on the validation splits")
def evaluate(checkout: Checkout) -> None:
    """Score the model and show what it finds."""
    _in_turn(checkout, "evaluate", artifacts.gallery, Patience.of_other_stages())


@stage_task("train again", "Trains from nothing, whatever DVC has of it already")
def train_again(checkout: Checkout) -> None:
    """Train from nothing, whatever DVC has of it already."""
    _in_turn(checkout, "train", artifacts.training, Patience.of_training(), "--force", "--no-run-cache")


@stage_task("evaluate again", "Scores the model, whatever DVC has of it already")
def evaluate_again(checkout: Checkout) -> None:
    """Score the model, whatever DVC has of it already."""
    _in_turn(checkout, "evaluate", artifacts.gallery, Patience.of_other_stages(), "--force", "--no-run-cache")


def _in_turn(
    checkout: Checkout, stage: str, pages: Callable[[Workspace], Iterable[Page]], patience: Patience, *options: str
) -> None:
    with ProgressReporter(stage) as reporter:
        with hold_turn(f"run {checkout.name}", devices_to_hold(checkout.path), reporter.line) as turn:
            run_dvc(checkout, ["repro", *options, "-s", stage], reporter, turn, patience)
        show(pages(Workspace(checkout.path)))


def show(pages: Iterable[Page]) -> None:
    """Send pages of the UI; the run goes on meanwhile."""
    for page in pages:
        outbox.send(page)


@stage_task("register", "Publishes the model, passes it through the gate, moves the alias", retries=3)
def register(checkout: Checkout) -> None:
    """Publish the model; the gate decides on the alias."""
    with ProgressReporter("register") as reporter:
        run_dvc(checkout, ["repro", "-s", "register"], reporter)


@stage_task("push", "Sends data and model to the DVC remote, where there is one", retries=3)
def push_data(checkout: Checkout) -> None:
    """Push to the DVC remote; without one, say that everything stays in the cache."""
    with ProgressReporter("push") as reporter:
        if checkout.has_dvc_remote():
            run_dvc(checkout, ["push"], reporter)
        else:
            reporter.line(
                "no default remote is configured (`dvc remote default NAME`): data and model stay in the cache"
            )


@stage_task("commit", "Commits parameters and DVC's records on the run's branch")
def commit_run(checkout: Checkout, message: str) -> None:
    """Commit, and tag the commit's release where tags are wanted."""
    checkout.commit(message)
    get_run_logger().info("branch %s is at %s", checkout.branch, checkout.head()[:12])
    values = read_release(Workspace(checkout.path).release)
    if GIT_TAGS.wanted() and values:
        root, name, version = checkout.paths.root, values["name"], values["version"]
        tags.tag_version(root, name, version, checkout.head())
        if values["promoted"]:
            tags.tag_alias(root, name, version, values["alias"])


@stage_task("push branch", "Pushes the run's branch and tags to the git remote", retries=3)
def push_branch(checkout: Checkout, remote: str) -> None:
    """Push branch and tags."""
    checkout.push(remote)
    values = read_release(Workspace(checkout.path).release)
    # Of the version's own commit: an earlier run may have made the same one.
    commit = values and tags.commit_of(checkout.paths.root, values["name"], values["version"])
    if GIT_TAGS.wanted() and commit:
        tags.push(checkout.paths.root, remote, commit)
    get_run_logger().info("branch %s is pushed to %s", checkout.branch, remote)


def write_code_digests(checkout: Checkout, listener: process.Listener) -> None:
    """Run the stage `code`, whose files every other stage needs, for a stage that is then run alone."""
    if Workspace(checkout.path).code_report.is_dir() or not _has_stage(checkout, "code"):
        return
    run_dvc(checkout, ["repro", "-s", "code"], listener)


def _has_stage(checkout: Checkout, stage: str) -> bool:
    """Return whether the checkout's dvc.yaml has a stage: a commit of before has no `code`."""
    return stage in read_yaml(checkout.path / "dvc.yaml").get("stages", {})


def run_dvc(
    checkout: Checkout,
    words: Sequence[str],
    listener: process.Listener,
    keep: Sequence[int] = (),
    patience: Patience | None = None,
) -> str:
    """Run `dvc WORDS` in a run's checkout, with the programs of this interpreter's environment first on the path.

    No other DVC may run there: a lock that one left when it was killed is removed.

    Args:
        keep: file descriptors that stay open as long as any process of the command is there.
        patience: with a command that is to end; of one that has nothing to save unless given.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    own = {"PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    environment = {**checkout.environment, **s3.checksum_variables(), **own}
    dvc_locks.remove_left(checkout.path)
    command, patience = [sys.executable, "-m", "dvc", *words], patience or Patience.of_other_stages()
    return process.run(command, checkout.path, environment, listener, keep, patience)
