"""Who is told of what happens to retrainings: the one setting `ZEROVL_NOTIFY`.

A command, an address of Apprise (https://appriseit.com: `slack://...`, `mailto://...`, `json://host/path` for a
webhook; or several of them), or `off`. Where it is not set, `make deploy` leaves notices as they are.
"""

from __future__ import annotations

import os
import re

VARIABLE = "ZEROVL_NOTIFY"
OFF = "off"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)  # how it begins; Apprise takes several, and spaces in one


def value() -> str:
    """Return the setting, "" where it is not set; `OFF` however its letters are written."""
    said = os.environ.get(VARIABLE, "").strip()
    return OFF if said.lower() == OFF else said


def address() -> str | None:
    """Return the address that the server sends notices to; None where the setting is not one."""
    return value() if _ADDRESS.match(value()) else None


def command() -> str | None:
    """Return the command that the worker runs for a notice; None where the setting is not one."""
    return None if value() in ("", OFF) or address() else value()
