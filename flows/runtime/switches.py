"""Settings of the environment that are on or off: `ZEROVL_PUSH_RUNS` and `ZEROVL_GIT_TAGS`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from flows.runtime.git import CheckoutError


@dataclass(frozen=True)
class Switch:
    """A variable of the environment: 1 is on, 0 and nothing are off."""

    variable: str
    on: str  # what 1 does, for people
    off: str  # what 0 does

    def wanted(self) -> bool:
        """Return whether it is on.

        Raises:
            CheckoutError: it is neither 1 nor 0.
        """
        value = os.environ.get(self.variable, "")
        if value not in ("", "0", "1"):
            raise CheckoutError(f"{self.variable}={value}: 1 {self.on}, 0 {self.off}")
        return value == "1"


PUSH_RUNS = Switch("ZEROVL_PUSH_RUNS", "pushes branches of runs to the git remote", "keeps them here")
GIT_TAGS = Switch("ZEROVL_GIT_TAGS", "tags releases and promotions in git", "makes no tags")


def check() -> None:
    """Raise `CheckoutError` for a value that nobody understands, before anything begins that would come to it late."""
    for switch in (PUSH_RUNS, GIT_TAGS):
        switch.wanted()
