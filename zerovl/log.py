"""What is not a result: notes, warnings and the course of a run, on stderr with the time and, of several, the rank.

    12:03:41 note: data/raw/photos: 3 entries are left out
    12:03:44 rank 1: lost another rank: connection closed by peer

`LOGLEVEL=WARNING` shows less, `LOGLEVEL=DEBUG` more.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

_NAME = "zerovl"
_FORMAT, _TIME = "%(asctime)s %(place)s%(message)s", "%H:%M:%S"


def logger() -> logging.Logger:
    """Return the package's logger; nothing is shown by it where a program that imports zerovl sets up no logging."""
    return logging.getLogger(_NAME)


def setup() -> None:
    """Show the package's log on stderr; for the commands of `zerovl` and its ranks, called once a process."""
    log = logger()
    if any(isinstance(handler, _Handler) for handler in log.handlers):
        return
    handler = _Handler()
    handler.setFormatter(_Formatter(_FORMAT, _TIME))
    log.addHandler(handler)
    log.setLevel(os.environ.get("LOGLEVEL", "INFO").upper())
    log.propagate = False


def line(text: str) -> str:
    """Return a line as the log has it, for those who cannot wait for a lock to write it (see `distributed.exits`)."""
    record = logging.LogRecord(_NAME, logging.INFO, "", 0, text, None, None)
    return _Formatter(_FORMAT, _TIME).format(record)


class _Formatter(logging.Formatter):
    """The rank is named where there are several, the level where it is not the usual one."""

    def format(self, record: logging.LogRecord) -> str:
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        rank = f"rank {os.environ.get('RANK', '0')}: " if several else ""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        record.place = rank + level
        return super().format(record)


class _Handler(logging.Handler):
    """Writes whole lines, above a progress bar where one is shown; a closed pipe or a full disk stops nobody."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            if bars := _progress_bars():
                bars.write(line, file=sys.stderr)
            else:
                sys.stderr.write(f"{line}\n")  # in one call, or lines of several ranks mix
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass  # stderr is gone, and with it whom this could be told to


def _progress_bars() -> Any:
    """tqdm where it shows a bar; it is not imported for the sake of a line."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return tqdm if tqdm is not None and getattr(tqdm, "_instances", None) else None
