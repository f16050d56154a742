"""`zerovl registry` as tasks of a flow: runs in the user's checkout, tags, shows the alias's history."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prefect import runtime

from flows.fenced import fenced
from flows.outbox import Page, outbox, send
from flows.pipeline import Silent
from flows.progress import ProgressReporter
from flows.runtime import process, pushing, switches, tags
from flows.runtime.checkout import safe_name
from flows.runtime.liveness import follow_worker
from flows.runtime.paths import Paths
from flows.stages import stage_task
from flows.stores import user_registry

_COMMAND = [sys.executable, "-m", "zerovl.cli", "registry"]


def change_alias(words: Sequence[str], alias: str) -> str:
    """Carry out one action on an alias NAME@ALIAS; returns what it said.

    Raises:
        CheckoutError: whether to tag, or to push, is set to what nobody understands; nothing was done.
    """
    follow_worker(runtime.flow_run.id)
    switches.check()
    said = str(run_registry_command(list(words)))
    if switches.GIT_TAGS.wanted():
        tag(alias)
    with outbox(Paths.here().reports / safe_name(runtime.flow_run.name)):
        show_history(words[0], alias, said)
    return said


# Never tried again by itself: a second rollback would go further back. The store has retries of its own.
@stage_task("run registry command", "Runs `zerovl registry`")
def run_registry_command(words: list[str]) -> str:
    """Run `zerovl registry WORDS` in the user's checkout; returns what it printed."""
    environment = {"ZEROVL_RUN": f"run {runtime.flow_run.name}"}
    with ProgressReporter(words[0]) as reporter:
        return process.run([*_COMMAND, *words], Paths.here().root, environment, reporter)


@stage_task("tag", "Lets the alias's git tag follow to the version that has it now", retries=3)
def tag(alias: str) -> None:
    """Move the git tag of an alias NAME@ALIAS to the version that has the alias now; push it where that is wanted."""
    paths = Paths.here()
    version = user_registry(paths).resolve(alias)
    tags.tag_alias(paths.root, version.name, version.number, alias.partition("@")[2])
    remote, commit = pushing.remote(paths), tags.commit_of(paths.root, version.name, version.number)
    if remote and commit:
        tags.push(paths.root, remote, commit)


@stage_task("history", "Shows all moves of the alias", retries=3)
def show_history(action: str, alias: str, said: str) -> None:
    """Show what a command said and all moves of the alias in the Artifacts tab."""
    history = process.run([*_COMMAND, "history", alias], Paths.here().root, {}, Silent())
    text = f"{fenced(said)}\n\n## History of {alias}\n\n{fenced(history)}"
    send(Page("alias-history", f"{action} {alias}: what was done, and all moves of the alias", text))
