"""Whether what runs leave in git goes to the remote: off unless `ZEROVL_PUSH_RUNS` says on.

A clone of somebody's repository has their address as its origin; whoever presses Run there does not mean to publish.
"""

from __future__ import annotations

from flows.runtime.checkout import BRANCHES, remote_of
from flows.runtime.paths import Paths
from flows.runtime.switches import PUSH_RUNS


def remote(paths: Paths) -> str | None:
    """Return the remote to push to; None where there is none, or the setting is off."""
    return remote_of(paths) if PUSH_RUNS.wanted() else None


def sentence(paths: Paths) -> str:
    """Return what becomes of the branches of runs, for people."""
    there = remote_of(paths)
    if there is None:
        return f"branches {BRANCHES}/* stay here: there is no git remote"
    if PUSH_RUNS.wanted():
        return f"branches {BRANCHES}/* are pushed to {there} ({PUSH_RUNS.variable}=1)"
    return f"branches {BRANCHES}/* stay here; {PUSH_RUNS.variable}=1 pushes them to {there}"
