"""`zerovl registry` as tasks of a flow: acts in the user's checkout, tags, shows the alias's history."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prefect import runtime
from prefect.artifacts import create_markdown_artifact

from flows.pipeline import Quiet
from flows.runtime import process, tags
from flows.runtime.checkout import remote_of
from flows.runtime.liveness import follow_worker
from flows.runtime.paths import Home
from flows.stages import Narrator, stage_task
from flows.stores import user_registry

_COMMAND = [sys.executable, "-m", "zerovl.cli", "registry"]


def run(words: Sequence[str], alias: str) -> str:
    """Carry out one action on an alias NAME@ALIAS; returns what it said."""
    follow_worker(runtime.flow_run.id)
    said = str(act(list(words)))
    if tags.wanted():
        tag(alias)
    show_history(words[0], alias, said)
    return said


# Never tried again by itself: a second rollback would go further back. The store has retries of its own.
@stage_task("act", "Runs `zerovl registry`")
def act(words: list[str]) -> str:
    environment = {"ZEROVL_RUN": f"run {runtime.flow_run.name}"}
    with Narrator(words[0]) as narrator:
        return process.run([*_COMMAND, *words], Home.here().root, environment, narrator)


@stage_task("tag", "Lets the alias's git tag follow to the version that has it now", retries=3)
def tag(alias: str) -> None:
    home = Home.here()
    version = user_registry(home).resolve(alias)
    tags.tag_alias(home.root, version.name, version.number, alias.partition("@")[2])
    remote, commit = remote_of(home), tags.commit_of(home.root, version.name, version.number)
    if remote and commit:
        tags.push(home.root, remote, commit)


@stage_task("history", "Shows all moves of the alias", retries=3)
def show_history(action: str, alias: str, said: str) -> None:
    history = process.run([*_COMMAND, "history", alias], Home.here().root, {}, Quiet())
    create_markdown_artifact(
        f"{said}\n\n## History of {alias}\n\n```\n{history}\n```", key=action, description=f"{action} {alias}"
    )
