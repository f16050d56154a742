"""What the stage `register` leaves in `reports/release.json`: a release, or why there is none and who makes one.

An experiment of DVC does not become a release unless it is asked to: fifty trials are not fifty versions. DVC sets
`DVC_STAGE` for the command of a stage, and `DVC_EXP_NAME` too where the stage is part of an experiment
(https://dvc.org/doc/user-guide/env).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerovl.files import read_json
from zerovl.params import RegisterParams

STAGE_VARIABLE, EXPERIMENT_VARIABLE = "DVC_STAGE", "DVC_EXP_NAME"


@dataclass(frozen=True)
class NotAsked:
    """The stage ran and registered nothing."""

    why: str
    command: str  # that registers the model after all

    def to_json(self, section: RegisterParams, model_digest: str | None) -> dict[str, Any]:
        """Return the content of `release.json`; a release would have a `version`."""
        return {
            "registered": False,
            "name": section.name,
            "store": section.store,
            "alias": section.alias,
            "why": self.why,
            "command": self.command,
            "model_digest": model_digest,
        }


def not_asked(section: RegisterParams, environment: Mapping[str, str] = os.environ) -> NotAsked | None:
    """Return why the stage is to register nothing, None where it is to.

    `zerovl register` as one types it is asked by that, whatever `register.when` says.
    """
    experiment = experiment_name(environment)
    if section.when == "always" or STAGE_VARIABLE not in environment:
        return None
    if experiment:
        return NotAsked(
            f"it is the experiment {experiment} of DVC, and register.when is {section.when}",
            f"zerovl registry add {experiment}",
        )
    if section.when == "asked":
        return NotAsked("register.when is asked", "zerovl register")
    return None


def experiment_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of the experiment of DVC that runs this command; "" outside of one."""
    return environment.get(EXPERIMENT_VARIABLE, "")


def read_release(path: Path) -> dict[str, Any] | None:
    """Return what was registered last; None where nothing was: there is no such file, or nobody asked for it."""
    values = read_json(path) if path.is_file() else {}
    return values if "version" in values else None
