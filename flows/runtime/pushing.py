"""Whether what runs leave in git goes to the remote: off unless `ZEROVL_PUSH_RUNS` says on.

A clone of somebody's repository has their address as its origin; whoever presses Run there does not mean to publish.
"""

from __future__ import annotations

import os

from flows.runtime.checkout import BRANCHES, remote_of
from flows.runtime.git import CheckoutError
from flows.runtime.paths import Paths

VARIABLE = "ZEROVL_PUSH_RUNS"


def wanted() -> bool:
    """Return whether branches and tags of runs are to be pushed.

    Raises:
        CheckoutError: the setting is neither 1 nor 0.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise CheckoutError(f"{VARIABLE}={value}: 1 pushes branches of runs to the git remote, 0 keeps them here")
    return value == "1"


def remote(paths: Paths) -> str | None:
    """Return the remote to push to; None where there is none, or the setting is off."""
    return remote_of(paths) if wanted() else None


def sentence(paths: Paths) -> str:
    """Return what becomes of the branches of runs, for people."""
    there = remote_of(paths)
    if there is None:
        return f"branches {BRANCHES}/* stay here: there is no git remote"
    if wanted():
        return f"branches {BRANCHES}/* are pushed to {there} ({VARIABLE}=1)"
    return f"branches {BRANCHES}/* stay here; {VARIABLE}=1 pushes them to {there}"
