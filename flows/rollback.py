"""The flow `rollback`: gives an alias back to the release before. `python -m flows.rollback --help`."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows import command, registry_command
from flows.forms import Release, Why
from flows.runtime import failure_log
from flows.runtime.cancellation import Cancellable
from flows.runtime.paths import Paths
from flows.stores import user_registry


@flow(name="rollback")
def rollback(
    why: Why,
    alias: Release = "zerovl@production",
) -> State[Any] | str:
    """Move an alias back to its previous holder and keep the reason in the history.

    Args:
        why: the reason, kept in the history
        alias: NAME@ALIAS
    """
    with Cancellable("the alias may have moved: `zerovl registry history` says so, before you run it again") as ended:
        failure_log.install()
        return registry_command.change_alias(["rollback", f"--why={why}", alias], alias)
    return ended.state


def check(alias: str, **_others: object) -> None:
    """Raise `ZeroVLError` where the alias has nothing to go back to."""
    name, _, label = alias.partition("@")
    user_registry(Paths.here()).holder_before(name, label)


if __name__ == "__main__":
    command.main(rollback, check)
