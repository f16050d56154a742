"""What every section of `params.yaml` is."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the file: frozen, with strict types, and without room for an unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def require_different(names: Iterable[str], what: str) -> None:
    """Raise `ValueError` where two of the names are the same; `what` they are begins the message."""
    found = list(names)
    if len(set(found)) != len(found):
        raise ValueError(f"{what} must differ, found {found}; rename one of them")
