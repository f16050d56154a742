"""The flow `promote`: gives an alias to a release by hand. `python -m flows.promote --help`."""

from __future__ import annotations

from prefect import flow

from flows import command, registry_command
from flows.forms import Release, Why
from flows.lifeline import follow_worker


@flow(name="promote")
def promote(release: Release, why: Why, alias: str = "production") -> str:
    """Fetch a release from the store, verify every byte, reload and re-score it, then move the alias to it.

    Args:
        release: NAME@VERSION
        why: the reason, kept in the history
        alias: the name that moves
    """
    follow_worker()
    name = release.partition("@")[0]
    return registry_command.run(["promote", release, alias, "--why", why], f"{name}@{alias}")


if __name__ == "__main__":
    command.main(promote)
