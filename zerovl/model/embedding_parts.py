"""Embeddings on disk part by part, so that a command that was interrupted goes on with what it has.

    OUT.parts/description.json    what the parts are of; parts of anything else are thrown away
    OUT.parts/KIND-000000.npz     rows, embeddings, and the rows that are broken with their reasons

Shapes: `n` items of a part that have an embedding, `D` embedding width.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write, read_json, write_json
from zerovl.log import logger

PART = 2048  # items; what an interruption costs at most
_DESCRIPTION = "description.json"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """What became of some items."""

    rows: npt.NDArray[np.int64]  # (n,) places of the items that have an embedding
    embeddings: npt.NDArray[np.float32]  # (n, D)
    broken: dict[int, str]  # place -> reason of the others


class Parts:
    """The parts of one output file; `description` says what they are of, and is compared."""

    def __init__(self, out: Path, description: dict[str, str]) -> None:
        self.folder = out.with_name(f"{out.name}.parts")
        if self.folder.exists() and not (self.folder / _DESCRIPTION).is_file():
            raise ZeroVLError(
                f"{self.folder}: in the way, parts of {out.name} go there; move it, or name another --out"
            )
        if self.folder.exists() and not self._fit(description):
            logger().info(f"{self.folder}: of another model or other pairs, so it is made again")
            shutil.rmtree(self.folder)
        if not self.folder.exists():
            write_json(self.folder / _DESCRIPTION, description)

    def embed(self, kind: str, items: Sequence[Item], encode: Callable[[Sequence[Item]], Part]) -> Part:
        """Return what became of all items; `encode` is asked for the parts that are not there, and numbers from 0."""
        starts = range(0, len(items), PART)
        found: list[Part] = []
        kept = 0
        with tqdm(total=len(items), desc=kind, unit="", leave=False) as bar:
            for start in starts:
                path = self.folder / f"{kind}-{start // PART:06d}.npz"
                part = _read(path)
                kept += part is not None
                if part is None:
                    part = encode(items[start : start + PART])
                    _write(path, part)
                found.append(
                    Part(part.rows + start, part.embeddings, {n + start: why for n, why in part.broken.items()})
                )
                bar.update(len(items[start : start + PART]))
        if kept:
            logger().info(f"{kind}: {kept} of {len(starts)} parts were there already")
        filled = [part for part in found if len(part.rows)]
        return Part(
            np.concatenate([part.rows for part in found]) if found else np.empty(0, np.int64),
            np.concatenate([part.embeddings for part in filled]) if filled else np.empty((0, 0), np.float32),
            {place: reason for part in found for place, reason in part.broken.items()},
        )

    def remove(self) -> None:
        """Remove the parts: the whole file is there."""
        shutil.rmtree(self.folder)

    def _fit(self, description: dict[str, str]) -> bool:
        try:
            return bool(read_json(self.folder / _DESCRIPTION) == description)
        except ZeroVLError:
            return False


def _write(path: Path, part: Part) -> None:
    with atomic_write(path) as file:
        np.savez(
            file,
            rows=part.rows,
            embeddings=part.embeddings,
            broken=np.array(list(part.broken), np.int64),
            reasons=np.array(list(part.broken.values()), np.str_),
        )


def _read(path: Path) -> Part | None:
    """A part, or None where there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            broken = dict(zip(file["broken"].tolist(), file["reasons"].tolist(), strict=True))
            return Part(file["rows"], file["embeddings"], broken)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
