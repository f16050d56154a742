"""The pairs of a CSV as a file of embeddings, for millions: memory does not grow with the embeddings.

Pictures are an index in `OUT.parts/pictures`, captions are parts beside it; both go on where they were interrupted.
Then the CSV is read once more, and each row gets its two embeddings (`zerovl.indexing.pairs_files`).
"""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from zerovl.files import atomic_write
from zerovl.indexing.index import BROKEN, Description, read_description
from zerovl.indexing.known import Known, parts_in, write_part
from zerovl.indexing.listing import CsvListing, digest_of, in_parts
from zerovl.indexing.pairs import LeftOut, Pair, each_row
from zerovl.indexing.pairs_files import PAIRS_FILES
from zerovl.indexing.pairs_target import CAPTIONS, PICTURES, PairsTarget
from zerovl.indexing.update import PART, known_in, update
from zerovl.log import logger

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder

_BATCH = 128


@dataclass(frozen=True)
class Written:
    """What became of the rows of a CSV."""

    rows: int
    left_out: Counter[str]  # rows by reason
    pictures: Description


def write_pairs(
    listing: CsvListing, target: PairsTarget, encoder: Encoder, reference: str, prefill: Callable[[], None]
) -> Written:
    """Write a row for each usable row of a CSV, in its order, and the list of the others.

    Args:
        listing: the CSV and the folder of its pictures.
        target: the files; where no row is usable the list alone is written.
        encoder: the model.
        reference: what it is called.
        prefill: makes parts of `target.parts / PICTURES`, as for `zerovl.indexing.update.update`.

    Raises:
        ZeroVLError: the CSV cannot be read, or no picture of it can be embedded.
    """
    folder = target.parts / PICTURES
    _remove_pictures_of_others(folder, listing, encoder)
    described = update(folder, listing, encoder, reference, prefill=prefill).description
    pictures = _Pictures(listing, known_in(folder, described), _broken(folder / BROKEN))
    captions = _Captions(target.parts / f"{CAPTIONS}{encoder.digest[:16]}", encoder)
    written, reasons = 0, Counter[str]()
    file = PAIRS_FILES[target.out.suffix](target.parts, described)
    with atomic_write(target.left_out, "w") as left_out, file:
        listed = csv.writer(left_out)
        listed.writerow(["lines", "image", "reason"])
        for part in in_parts(tqdm(each_row(listing.table), desc="pairs", unit="", leave=False), PART):
            good, images, wrong = pictures.embed(part)
            listed.writerows([one.lines, one.image, one.reason] for one in wrong)
            reasons.update(one.reason for one in wrong)
            written += len(good)
            if good:
                file.add(good, images, captions.embed([row.caption for row in good]))
    if written:
        file.finish(target.out)
    return Written(written, reasons, described)


def _remove_pictures_of_others(folder: Path, listing: CsvListing, encoder: Encoder) -> None:
    """Begin again where a run that was interrupted had all pictures of another model, or of another folder."""
    before = read_description(folder)
    if before and (before.model.digest != encoder.digest or before.images != str(listing.root.absolute())):
        logger().info(f"{folder}: of another model or of other pictures, so they are made again")
        shutil.rmtree(folder)


@dataclass(frozen=True)
class _Pictures:
    """The embeddings of the pictures of a CSV, and why some have none."""

    listing: CsvListing
    known: Known
    broken: dict[str, str]  # key -> reason

    def embed(self, part: Sequence[Pair | LeftOut]) -> tuple[list[Pair], npt.NDArray[np.floating], list[LeftOut]]:
        """Return the pairs of a part whose picture has an embedding, these (n, D), and what is left out."""
        pairs = [row for row in part if isinstance(row, Pair)]
        listed = {row.image: self.listing.named(row.image) for row in pairs}
        names = [name for name, one in listed.items() if not one.problem]
        places = dict(zip(names, self.known.places([listed[name].identity for name in names]).tolist(), strict=True))
        good: list[Pair] = []
        left_out: list[LeftOut] = []
        for row in part:
            if isinstance(row, LeftOut):
                left_out.append(row)
            elif places.get(row.image, -1) >= 0:
                good.append(row)
            else:
                one = listed[row.image]
                reason = one.problem or self.broken.get(one.key, "changed while it was embedded")
                left_out.append(LeftOut(row.lines, row.image, reason))
        found = np.array([places[row.image] for row in good], np.int64)
        return good, self.known.embeddings(found) if good else np.empty((0, 0), np.float32), left_out


class _Captions:
    """Embeddings of captions, each part of them kept as it is made."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._encoder = folder, encoder
        self._known = Known(parts_in(folder))

    def embed(self, captions: Sequence[str]) -> npt.NDArray[np.floating]:
        """Return the embeddings of captions, (n, D); equal ones are embedded once."""
        places = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
        distinct = list(places)  # (u,)
        identities = [digest_of(caption) for caption in distinct]
        there = self._known.places(identities)
        missing = np.flatnonzero(there < 0)
        found: dict[bool, npt.NDArray[np.floating]] = {}
        if len(missing):
            texts = [distinct[place] for place in missing.tolist()]
            found[False] = self._encoder.encode_text(texts, batch_size=_BATCH).numpy()
            write_part(self._folder, [identities[place] for place in missing.tolist()], found[False])
        if len(missing) < len(distinct):
            found[True] = self._known.embeddings(there[there >= 0])
        together = np.empty((len(distinct), next(iter(found.values())).shape[1]), np.float32)  # (u, D)
        for known, embeddings in found.items():
            together[(there >= 0) == known] = embeddings
        return together[[places[caption] for caption in captions]]


def _broken(path: Path) -> dict[str, str]:
    """Reasons of the pictures that could not be embedded, by key."""
    with open(path, encoding="utf-8", newline="") as file:
        return {row["picture"]: row["reason"] for row in csv.DictReader(file)}
