"""`zerovl summary`: what the last run of the pipeline came to, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.evaluation.holder import holder_from
from zerovl.evaluation.metrics import (
    HEADLINE,
    cell,
    further_evaluators,
    headline_block,
    headline_title,
    metric_names,
    retrieval_blocks,
)
from zerovl.evaluation.training_warnings import read_warnings
from zerovl.files import read_json, sha256_file
from zerovl.registry import release_files
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store, store_uri
from zerovl.release import moved_away
from zerovl.workspace import Workspace


def show(workspace: Workspace) -> None:
    """Print scores, the registered version and where the report is; raises `ZeroVLError` before a first run.

    A score is shown with a release of the same model alone: DVC brings another model and its scores back into a
    checkout, but not what was registered.
    """
    release, metrics = read_json(workspace.release), read_json(workspace.evaluation_metrics)
    scores = headline_block(metrics)[1]
    interval = f"[{scores[HEADLINE.low]:.1f}, {scores[HEADLINE.high]:.1f}]"
    ratio = scores[HEADLINE.over_untrained]
    print()
    title = headline_title(metrics).removeprefix(HEADLINE.label)
    print(
        f"  {HEADLINE.label:<9} {scores[HEADLINE.name]:.1f} {interval} of {HEADLINE.maximum:.0f}{title}; "
        f"{scores['images']} pictures never trained on"
    )
    print(
        f"            untrained {scores[HEADLINE.untrained]:.1f}, chance {scores[HEADLINE.chance]:.1f}"
        + (f": {ratio:.1f} times the untrained model" if ratio else "")
    )
    if len(metrics["sources"]) > 1:
        parts = (f"{name} {block[HEADLINE.name]:.1f}" for name, block in retrieval_blocks(metrics)[1:])
        print(f"            {', '.join(parts)}")
    for evaluator, table in further_evaluators(metrics).items():
        shown = (f"{name} {cell(table['overall'], name)[0]}" for name in metric_names(table))
        print(f"  {evaluator:<9} {', '.join(shown)}")
    for line in _release_lines(release, metrics, workspace):
        print(line)
    for text in read_warnings(workspace.training_run):
        print(f"  warning   {text}")
    print(f"  report    {workspace.evaluation_page.resolve().as_uri()}")


def _release_lines(release: Mapping[str, Any], metrics: Mapping[str, Any], workspace: Workspace) -> Iterator[str]:
    """The release of this model and whom it was held against; or that the last one is of another model, or none."""
    if "version" not in release:
        asked = release["model_digest"] == metrics.get("model_digest")
        why = release["why"] if asked else f"{workspace.release} is of another model"
        yield f"  release   none: {why}"
        yield f"            `{release['command'] if asked else 'dvc repro register'}` registers it"
        return
    reference, files = f"{release['name']}@{release['version']}", release.get("files") or {}
    evaluated, registered = metrics.get("model_digest"), files.get(release_files.WEIGHTS)
    if evaluated != registered:
        yield "  release   none of this model; `dvc repro register` registers it"
        yield (
            f"            {workspace.release} is of {reference}, whose weights are {str(registered)[:12]}; the scores "
            f"are of {str(evaluated)[:12]}"
        )
        return
    held, why = _alias_now(release, workspace)
    yield f"  release   {reference}{held} in {release['store']}"
    if why:
        yield f"            {why}"
    if files.get(release_files.METRICS) != sha256_file(workspace.evaluation_metrics):
        yield f"            {reference} has other scores of this model; `dvc repro register` registers these"
    elif holder := holder_from(release.get("verdict")):
        yield f"  holder    {holder.alias} was {holder}"


def _alias_now(release: Mapping[str, Any], workspace: Workspace) -> tuple[str, str]:
    """What a release has of its alias now, as its store says, to follow its name; and why it has not got it, if so."""
    if not release["alias"]:
        return "", ""
    alias = f"{release['name']}@{release['alias']}"
    try:
        registry = Registry(open_store(store_uri(release["store"], workspace.shared)).hurried())
        move = registry.current(release["name"], release["alias"])
        if move and move.version == release["version"]:
            return f", {alias}", ""
        version = registry.version(release["name"], release["version"])
        if away := moved_away.find(registry, version, release["alias"]):
            return "", str(away)
    except (ZeroVLError, OSError) as error:
        if not release["promoted"]:
            return "", f"the store cannot be asked who has {alias} now: {error}"
        return f", {alias} when it was registered", f"the store cannot be asked who has it now: {error}"
    return "", "" if release["verdict"]["passed"] else f"the gate refused it {alias}"
