"""The lock on a run's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zerovl.distributed import exits
from zerovl.distributed.ranks import Ranks
from zerovl.errors import ZeroVLError
from zerovl.files import try_lock
from zerovl.shared_folder import denied_explained


@contextmanager
def locked(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Let only one group of ranks train a run: a second one is told so instead of mixing its checkpoints in.

    Raises `ZeroVLError` on rank 0 and ends the other ranks; all ranks call it together.
    """
    path = folder / "lock"
    fix = "where the run is another user's, let them go on with it, or train in a checkout of your own"
    with denied_explained(folder, f"run {folder}", fix):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  # closed below
    with file:
        refused = ranks.is_first and not try_lock(file.fileno(), path)
        if ranks.any(refused)[0]:
            if not ranks.is_first:
                raise SystemExit(exits.FAILED)  # rank 0 says why
            file.seek(0)
            raise ZeroVLError(f"{folder}: process {file.read().strip() or '?'} trains this run already; wait or end it")
        if ranks.is_first:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield
