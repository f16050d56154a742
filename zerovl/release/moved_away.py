"""A model that had an alias and lost it, by a rollback or to another version, is not given it back by a registration.

A stage that runs again, a schedule and an event all register what is there already. What a person took the alias from
would have it again minutes later, for the gate compares scores and knows nothing of why. So the gate gives an alias to
models that never had it, and a person gives it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from zerovl.registry.records import Move, Version
from zerovl.registry.registry import Registry


@dataclass(frozen=True)
class MovedAway:
    """An alias was moved from a model that is registered again."""

    version: Version  # the model, in use
    move: Move  # that took the alias from it
    holder: int  # version that has the alias now

    def __str__(self) -> str:
        alias, move = f"{self.version.name}@{self.move.alias}", self.move
        how = "a rollback" if move.action == "rollback" else "a promotion"
        why = f', "{move.why}"' if move.why else ""
        when = move.when[:16].replace("T", " ")
        return (
            f"{alias} stays with {self.version.name}@{self.holder}: this model had it until {how} to version "
            f"{move.version} (move {move.number}, {when} UTC by {move.by}{why}), and registering a model does not give "
            f"back what it lost; `{self.command}` does"
        )

    @property
    def command(self) -> str:
        """The command by which a person gives the alias back."""
        return f"zerovl registry promote {self.version.reference} {self.move.alias} --why TEXT"


def find(registry: Registry, version: Version, alias: str) -> MovedAway | None:
    """Return the last move of an alias away from a model; None where the model has it, or never had it.

    A model that was retired and registered again has another number; it is known by its identity.
    """
    history = registry.history(version.name, alias)  # newest first
    held = registry.versions(version.name, sorted({move.version for move in history}))
    same = {version.number, *(each.number for each in held if each.identity == version.identity)}
    if not history or history[0].version in same:
        return None
    for later, earlier in pairwise(history):
        if earlier.version in same:
            return MovedAway(version, later, history[0].version)
    return None
