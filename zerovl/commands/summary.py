"""`zerovl summary`: what the last run of the pipeline came to, in a few lines."""

from __future__ import annotations

from zerovl.files import read_json
from zerovl.workspace import Workspace


def show(workspace: Workspace) -> None:
    """Print scores, the registered version and where the report is; raises `ZeroVLError` before a first run."""
    release = read_json(workspace.release)
    scores = read_json(workspace.evaluation_metrics)["overall"]
    interval = f"[{scores['rsum_low']:.1f}, {scores['rsum_high']:.1f}]"
    ratio = scores["rsum_over_untrained"]
    held = ""
    if release["alias"]:
        held = f", {release['name']}@{release['alias']}" if release["promoted"] else ", the gate refused the alias"
    print()
    print(f"  RSUM      {scores['rsum']:.1f} {interval} of 600 over {scores['images']} unseen pictures")
    print(
        f"            untrained {scores['untrained_rsum']:.1f}, chance {scores['chance_rsum']:.1f}"
        + (f": {ratio:.0f} times the untrained model" if ratio else "")
    )
    print(f"  release   {release['name']}@{release['version']}{held} in {release['store']}")
    print(f"  report    {workspace.evaluation_page.resolve().as_uri()}")
