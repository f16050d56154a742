"""Read an .npz of embeddings; what is not one gets an error that names it, and no advice of NumPy's on pickles."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zerovl.errors import ZeroVLError

_SINGLE = b"\x93NUMPY"  # what an .npy begins with
_TABLE = b"PAR1"  # what a Parquet file begins with


def read_npz(file: Path, wanted: Collection[str] = (), made_by: str = "zerovl embed") -> Mapping[str, npt.NDArray[Any]]:
    """Return the arrays of an .npz by name, read without pickle: those that are `wanted`, else all.

    Args:
        made_by: the command that makes such a file, for messages.

    Raises `ZeroVLError` where there is no such file, it is something else or broken, it lacks an array that is wanted,
    or one that is read holds Python objects.
    """
    make = f"make it with `{made_by}`"
    try:
        with file.open("rb") as opened:  # NumPy takes whatever is neither .npz nor .npy for a pickle
            begins = opened.read(len(_SINGLE))
        if begins == _SINGLE:
            raise ZeroVLError(f"{file}: a single array (.npy), expected an .npz; {make}")
        if begins.startswith(_TABLE):
            raise ZeroVLError(f"{file}: a table (Parquet), expected an .npz; {make}")
        if not zipfile.is_zipfile(file):
            raise ZeroVLError(f"{file}: not a readable .npz, or one that is cut short; {make}")
        with np.load(file, allow_pickle=False) as archive:
            if lacking := [name for name in wanted if name not in archive]:
                raise ZeroVLError(
                    f"{file}: no array {', '.join(lacking)}; found {', '.join(archive) or 'none'}; {make}"
                )
            return {name: _plain(file, name, archive) for name in wanted or archive}
    except FileNotFoundError:
        raise ZeroVLError(f"{file}: no such file; {make}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ZeroVLError(f"{file}: not a readable .npz ({error}); {make}") from None


def _plain(file: Path, name: str, archive: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ZeroVLError(f"{file}: {name} holds Python objects, which are not read; store numbers or text") from None
