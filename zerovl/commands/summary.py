"""`zerovl summary`: what the last run of the pipeline came to, in a few lines."""

from __future__ import annotations

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
from zerovl.files import read_json
from zerovl.workspace import Workspace


def show(workspace: Workspace) -> None:
    """Print scores, the registered version and where the report is; raises `ZeroVLError` before a first run."""
    release = read_json(workspace.release)
    metrics = read_json(workspace.evaluation_metrics)
    scores = headline_block(metrics)[1]
    interval = f"[{scores[HEADLINE.low]:.1f}, {scores[HEADLINE.high]:.1f}]"
    ratio = scores[HEADLINE.over_untrained]
    held = ""
    if release["alias"]:
        held = f", {release['name']}@{release['alias']}" if release["promoted"] else ", the gate refused the alias"
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
    print(f"  release   {release['name']}@{release['version']}{held} in {release['store']}")
    for text in read_warnings(workspace.training_run):
        print(f"  warning   {text}")
    print(f"  report    {workspace.evaluation_page.resolve().as_uri()}")
