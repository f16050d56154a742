"""The flow `promote`: gives an alias to a release by hand. `python -m flows.promote --help`."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows import command, registry_command
from flows.forms import Alias, Release, Why
from flows.runtime import failure_log
from flows.runtime.cancellation import Cancellable
from flows.runtime.paths import Paths
from flows.stores import user_registry
from zerovl.release.refusal import require_passed


@flow(name="promote")
def promote(release: Release, why: Why, alias: Alias = "production", over_the_gate: bool = False) -> State[Any] | str:
    """Fetch a release from the store, verify every byte, reload and re-score it, then move the alias to it.

    Args:
        release: NAME@VERSION
        why: the reason, kept in the history
        alias: the name that moves
        over_the_gate: also where the gate refused the release
    """
    with Cancellable() as ended:
        failure_log.install()
        name = release.partition("@")[0]
        words = ["--over-the-gate"] if over_the_gate else []
        return registry_command.change_alias(["promote", f"--why={why}", *words, release, alias], f"{name}@{alias}")
    return ended.state


def check(release: str, alias: str, over_the_gate: bool, **_others: object) -> None:
    """Raise `ZeroVLError` where there is no such release, or the gate refused it and nobody says that it is known."""
    registry = user_registry(Paths.here())
    require_passed(registry, registry.resolve(release), alias, over_the_gate)


if __name__ == "__main__":
    command.main(promote, check)
