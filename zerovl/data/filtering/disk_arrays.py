"""Arrays in files whose room is taken before they are used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def disk_array(path: Path, kind: Any, size: int) -> npt.NDArray[Any]:
    """Return zeros (size,) in a new file.

    Raises `OSError` where the disk has no room for them. A file with holes would be made even then, and the first write
    into a hole would end the process by a signal, without a word.
    """
    length = max(1, size) * np.dtype(kind).itemsize
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, length)
        else:
            file.truncate(length)
    return np.memmap(path, kind, "r+", shape=(max(1, size),))
