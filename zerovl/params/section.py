"""What every section of `params.yaml` is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the file: frozen, with strict types, and without room for an unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
