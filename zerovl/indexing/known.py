"""Embeddings that are there already, found by the identity of what they are of.

They lie in pairs of files, `NAME.ids.npy` (n,) and `NAME.npy` (n, D). Only the identities are held in memory, with 32
bytes an embedding; the embeddings are mapped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zerovl.files import atomic_write
from zerovl.indexing.listing import IDENTITY_BYTES

Floats = npt.NDArray[np.floating]
IDENTITY = np.dtype(f"S{IDENTITY_BYTES}")  # sorted and compared byte by byte
_OPEN_FILES = 16


class Known:
    """Looks embeddings up; of an identity that is there twice either one is right."""

    def __init__(self, files: Iterable[tuple[Path, Path]]) -> None:
        """Read the identities of some files, which are (identities, embeddings); what is damaged is not known."""
        identities, numbers, rows = [np.empty(0, IDENTITY)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        self._files: list[Path] = []
        for ids_file, embeddings_file in files:
            found = _readable(ids_file, embeddings_file)
            if found is None:
                continue
            identities.append(found)
            numbers.append(np.full(len(found), len(self._files), np.int32))
            rows.append(np.arange(len(found)))
            self._files.append(embeddings_file)
        together = np.concatenate(identities)
        order = np.argsort(together)
        self._identities = together[order]  # (K,)
        self._numbers = np.concatenate(numbers)[order]  # (K,) file of each
        self._rows = np.concatenate(rows)[order]  # (K,) row in its file
        self._mapped = lru_cache(_OPEN_FILES)(lambda number: np.load(self._files[number], mmap_mode="r"))

    def __len__(self) -> int:
        return len(self._identities)

    def places(self, identities: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Return where each is, -1 for those that are not there; (n,)."""
        wanted = as_array(identities)
        if not len(self):
            return np.full(len(wanted), -1, np.int64)
        places = np.searchsorted(self._identities, wanted).clip(max=len(self) - 1)
        return np.where(self._identities[places] == wanted, places, -1)

    def embeddings(self, places: npt.NDArray[np.int64]) -> Floats:
        """Return the embeddings at some places, at least one; (n, D)."""
        numbers, rows = self._numbers[places], self._rows[places]
        found: Floats | None = None
        for number in np.unique(numbers).tolist():
            mapped, here = self._mapped(number), numbers == number
            if found is None:
                found = np.empty((len(places), mapped.shape[1]), mapped.dtype)
            found[here] = mapped[rows[here]]
        assert found is not None
        return found


def _readable(ids_file: Path, embeddings_file: Path) -> npt.NDArray[np.bytes_] | None:
    """The identities (n,) of a file, None where it or its embeddings are cut or gone: they are made again."""
    try:
        identities: npt.NDArray[np.bytes_] = np.load(ids_file)
        rows = len(np.load(embeddings_file, mmap_mode="r"))
    except (OSError, ValueError, EOFError):
        return None
    return identities if len(identities) == rows else None


def as_array(identities: Sequence[bytes]) -> npt.NDArray[np.bytes_]:
    """Return identities as an array (n,) of `IDENTITY`."""
    return np.frombuffer(b"".join(identities), IDENTITY)


def write_part(folder: Path, identities: Sequence[bytes], embeddings: Floats) -> None:
    """Keep the embeddings (n, D) of some identities; the identities are written last, and make it count."""
    name = hashlib.blake2b(b"".join(identities), digest_size=IDENTITY_BYTES).hexdigest()
    for path, array in ((folder / f"{name}.npy", embeddings), (folder / f"{name}.ids.npy", as_array(identities))):
        with atomic_write(path) as file:
            np.save(file, array)


def parts_in(folder: Path) -> list[tuple[Path, Path]]:
    """Return the parts that `write_part` has finished in a folder: (identities, embeddings)."""
    found = sorted(folder.glob("*.ids.npy"))
    return [(path, path.with_name(path.name.replace(".ids.npy", ".npy"))) for path in found]
