"""Small models in a registry, retired, and their files removed."""

from __future__ import annotations

from pathlib import Path

from zerovl.registry import collection, retention
from zerovl.registry.records import Version, now
from zerovl.registry.registry import Registry

SHARED, OWN = b"shared by all", b"of one version"


def small(own: bytes = OWN) -> dict[str, Path | bytes]:
    return {"config.json": SHARED, "model.safetensors": own}


def retire(registry: Registry, version: Version, why: str = "of no use") -> None:
    retention.retire(registry, version, why, "tester")


def collect(registry: Registry) -> list[str]:
    """Remove with no grace at all; returns what was removed."""
    return sorted(each.path for each in collection.collect(registry, "zerovl", now(), "tester"))
