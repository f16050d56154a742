"""`zerovl registry` as a task of a flow: runs in the user's checkout, shows the alias's history."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prefect import runtime
from prefect.artifacts import create_markdown_artifact

from flows import child, tags
from flows.checkout import remote_of
from flows.home import Home
from flows.pipeline import Quiet
from flows.stages import Narrator, stage_task
from flows.stores import user_registry


def run(words: Sequence[str], alias: str) -> str:
    """Carry out one action; returns what it said."""
    return str(act(list(words), alias))


@stage_task("registry", "Runs `zerovl registry` and shows the history of the alias", retries=3)
def act(words: list[str], alias: str) -> str:
    home = Home.here()
    environment = {"ZEROVL_RUN": f"run {runtime.flow_run.name}"}
    command = [sys.executable, "-m", "zerovl.cli", "registry"]
    with Narrator(words[0]) as narrator:
        said = child.run([*command, *words], home.root, environment, narrator)
    if tags.wanted():
        _tag(home, alias)
    history = child.run([*command, "history", alias], home.root, environment, Quiet())
    create_markdown_artifact(
        f"{said}\n\n## History of {alias}\n\n```\n{history}\n```", key=words[0], description=f"{words[0]} {alias}"
    )
    return said


def _tag(home: Home, alias: str) -> None:
    """The alias's tag follows to the version that has it now."""
    version = user_registry(home).resolve(alias)
    tags.push(home.root, remote_of(home), tags.tag_alias(home.root, version.name, version.number, alias.split("@")[1]))
