"""One task a DVC stage: runs it as a child process, tells its log and progress, shows what it made."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flows import artifacts
from flows.runtime import process, tags
from flows.runtime.checkout import Checkout
from flows.runtime.gpu_lock import gpu_lease
from flows.runtime.process import Bar
from zerovl.files import read_json
from zerovl.workspace import Workspace

# What DVC says to someone at a terminal; a run commits and pushes by itself.
_HINTS = (
    "To track the changes with git",
    "git add",
    "To enable auto staging",
    "dvc config core.autostage",
    "Use `dvc push`",
)
_EVERY = 2.0  # seconds between updates of a progress artifact
_RETRY_DELAYS = [5.0, 20.0, 60.0]  # seconds before another attempt where input or output failed


def stage_task(name: str, text: str, retries: int = 0) -> Callable[[Callable[..., Any]], Any]:
    """A Prefect task without cache of its own: what is up to date is DVC's to know."""
    return task(
        name=name,
        task_run_name=name,
        description=text,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=retries,
        retry_delay_seconds=_RETRY_DELAYS[:retries] or None,
    )


@stage_task("prepare", "Fetches the raw data and packs it into shards", retries=3)
def prepare(checkout: Checkout, start: str | None = None) -> None:
    # Not `-s`: what lies before `prepare` is the data itself, drawn, imported or in the cache or a remote.
    with Narrator("prepare") as narrator:
        run_dvc(checkout, ["repro", "--pull", "prepare"], narrator)
        if start:  # the model to start from
            run_dvc(checkout, ["pull" if checkout.has_dvc_remote() else "checkout", start], narrator)


@stage_task("validate", "Checks the data against the rules of params.yaml")
def validate(checkout: Checkout) -> None:
    with Narrator("validate") as narrator:
        try:
            run_dvc(checkout, ["repro", "-s", "validate"], narrator)
        finally:
            if (Workspace(checkout.path).validation_report / "verdict.json").is_file():
                show(artifacts.validation, checkout)  # of broken data above all


@stage_task("train", "Trains, or goes on with an interrupted run of the same parameters, data and code")
def train(checkout: Checkout) -> None:
    _on_gpu(checkout, "train", artifacts.training)


@stage_task("evaluate", "Scores the model on the validation splits")
def evaluate(checkout: Checkout) -> None:
    _on_gpu(checkout, "evaluate", artifacts.gallery)


@stage_task("train anew", "Trains from nothing, whatever DVC has of it already")
def train_anew(checkout: Checkout) -> None:
    _on_gpu(checkout, "train", artifacts.training, "--force", "--no-run-cache")


@stage_task("evaluate anew", "Scores the model, whatever DVC has of it already")
def evaluate_anew(checkout: Checkout) -> None:
    _on_gpu(checkout, "evaluate", artifacts.gallery, "--force", "--no-run-cache")


def _on_gpu(checkout: Checkout, stage: str, page: Callable[[Workspace], None], *options: str) -> None:
    with Narrator(stage) as narrator:
        with gpu_lease(f"run {checkout.name}", narrator.line) as lease:
            run_dvc(checkout, ["repro", *options, "-s", stage], narrator, keep=[lease])
        show(page, checkout)


def show(page: Callable[[Workspace], None], checkout: Checkout) -> None:
    """Make a page of the UI; one that does not arrive is no reason to lose the work that it is about."""
    try:
        page(Workspace(checkout.path))
    except httpx.HTTPError as error:
        get_run_logger().warning("a page of the Artifacts tab could not be sent: %s", error)


@stage_task("register", "Publishes the model, passes it through the gate, moves the alias", retries=3)
def register(checkout: Checkout) -> None:
    with Narrator("register") as narrator:
        run_dvc(checkout, ["repro", "-s", "register"], narrator)


@stage_task("push", "Sends data and model to the DVC remote, where there is one", retries=3)
def push_data(checkout: Checkout) -> None:
    with Narrator("push") as narrator:
        if checkout.has_dvc_remote():
            run_dvc(checkout, ["push"], narrator)
        else:
            narrator.line(
                "no default remote is configured (`dvc remote default NAME`): data and model stay in the cache"
            )


@stage_task("commit", "Commits parameters and DVC's records on the run's branch")
def commit_run(checkout: Checkout, message: str) -> None:
    checkout.commit(message)
    get_run_logger().info("branch %s is at %s", checkout.branch, checkout.head()[:12])
    release = Workspace(checkout.path).release
    if tags.wanted() and release.is_file():
        values = read_json(release)
        root, name, version = checkout.home.root, values["name"], values["version"]
        tags.tag_version(root, name, version, checkout.head())
        if values["promoted"]:
            tags.tag_alias(root, name, version, values["alias"])


@stage_task("push branch", "Pushes the run's branch and tags to the git remote, where there is one", retries=3)
def push_branch(checkout: Checkout) -> None:
    remote = checkout.push()
    release = Workspace(checkout.path).release
    if remote and tags.wanted() and release.is_file():
        # Of the version's own commit: an earlier run may have made the same one.
        values = read_json(release)
        if commit := tags.commit_of(checkout.home.root, values["name"], values["version"]):
            tags.push(checkout.home.root, remote, commit)
    if remote:
        get_run_logger().info("branch %s is pushed to %s", checkout.branch, remote)


def run_dvc(checkout: Checkout, words: Sequence[str], listener: process.Listener, keep: Sequence[int] = ()) -> str:
    """`dvc WORDS` in a run's checkout, with the programs of this interpreter's environment first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**checkout.environment, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    return process.run([sys.executable, "-m", "dvc", *words], checkout.path, environment, listener, keep)


class Narrator:
    """Lines to the run's log, bars to one progress artifact; never holds up the command.

    The artifact is written from a thread of its own: where the server is away, only the newest state waits.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._logger = get_run_logger()
        self._newest: Bar | None = None
        self._ended = threading.Event()
        # The thread writes in the name of this task run.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._write,), daemon=True)
        self._last = Bar(stage, 0.0, "started")

    def line(self, text: str) -> None:
        if not text.strip().startswith(_HINTS):
            self._logger.info(text)

    def bar(self, bar: Bar) -> None:
        self._newest = bar

    def __enter__(self) -> Self:
        self._since = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = f"{time.monotonic() - self._since:.0f} s"
        self._newest = Bar("", 100.0, f"done in {took}") if kind is None else self._stopped(took)
        self._ended.set()
        self._thread.join(timeout=10.0)

    def _stopped(self, took: str) -> Bar:
        last = self._newest or self._last
        return Bar(last.title, last.percent, f"stopped after {took}; {last.text}")

    def _write(self) -> None:
        artifact: UUID | None = None
        while True:
            ended = self._ended.wait(_EVERY if artifact else 0.0)
            bar, self._newest = self._newest or (None if artifact else self._last), None
            if bar:
                self._last = bar
                try:
                    artifact = self._send(artifact, bar)
                except httpx.HTTPError as error:
                    self._newest = self._newest or bar
                    self._logger.debug("progress of %s not sent: %s", self._stage, error)
            if ended:
                return

    def _send(self, artifact: UUID | None, bar: Bar) -> UUID:
        title = f"{bar.title}: " if bar.title not in ("", self._stage) else ""
        description = f"**{self._stage}** {title}{bar.text}"
        if artifact is None:
            made = create_progress_artifact(bar.percent, key=f"progress-{self._stage}", description=description)
            assert isinstance(made, UUID)
            return made
        update_progress_artifact(artifact, bar.percent, description=description)
        return artifact
