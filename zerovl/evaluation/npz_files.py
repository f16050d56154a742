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
_MAKE = "make it with `zerovl embed`"


def read_npz(file: Path, wanted: Collection[str] = ()) -> Mapping[str, npt.NDArray[Any]]:
    """Return the arrays of an .npz by name, read without pickle: those that are `wanted`, else all.

    Raises `ZeroVLError` where there is no such file, it is something else or broken, it lacks an array that is wanted,
    or one that is read holds Python objects.
    """
    try:
        with file.open("rb") as opened:  # NumPy takes whatever is neither .npz nor .npy for a pickle
            if opened.read(len(_SINGLE)) == _SINGLE:
                raise ZeroVLError(f"{file}: a single array (.npy), expected an .npz; {_MAKE}")
        if not zipfile.is_zipfile(file):
            raise ZeroVLError(f"{file}: not a readable .npz, or one that is cut short; {_MAKE}")
        with np.load(file, allow_pickle=False) as archive:
            if lacking := [name for name in wanted if name not in archive]:
                raise ZeroVLError(
                    f"{file}: no array {', '.join(lacking)}; found {', '.join(archive) or 'none'}; {_MAKE}"
                )
            return {name: _plain(file, name, archive) for name in wanted or archive}
    except FileNotFoundError:
        raise ZeroVLError(f"{file}: no such file; {_MAKE}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ZeroVLError(f"{file}: not a readable .npz ({error}); {_MAKE}") from None


def _plain(file: Path, name: str, archive: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ZeroVLError(f"{file}: {name} holds Python objects, which are not read; store numbers or text") from None
