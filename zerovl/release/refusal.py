"""A release that the gate refused gets an alias only from someone who says so, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.release.gate import in_one_line


def refused(verdict: Mapping[str, Any] | None) -> bool:
    """Return whether a verdict of the gate is a refusal; a release of before the gate has none."""
    return verdict is not None and not verdict.get("passed", True)


def require_passed(registry: Registry, version: Version, alias: str, answered_for: bool) -> None:
    """Raise `ZeroVLError` where the gate refused a version that does not have the alias yet.

    Args:
        answered_for: somebody takes it on themselves, with a reason.
    """
    holder = registry.current(version.name, alias)
    if answered_for or not refused(version.verdict) or (holder and holder.version == version.number):
        return
    raise ZeroVLError(
        f"{version.reference} was refused by the gate: {in_one_line(version.verdict)}. To promote it all the same, "
        "say so and why, for the history: --over-the-gate --why TEXT"
    )
