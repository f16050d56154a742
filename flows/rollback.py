"""The flow `rollback`: gives an alias back to the release before. `python -m flows.rollback --help`."""

from __future__ import annotations

from prefect import flow

from flows import command, registry_command
from flows.forms import Release, Why


@flow(name="rollback")
def rollback(
    why: Why,
    alias: Release = "zerovl@production",
) -> str:
    """Move an alias back to its previous holder and keep the reason in the history.

    Args:
        why: the reason, kept in the history
        alias: NAME@ALIAS
    """
    return registry_command.run(["rollback", f"--why={why}", alias], alias)


if __name__ == "__main__":
    command.main(rollback)
