"""Make an index, or bring it up to date: what is new or changed is embedded, what is gone leaves it.

An update goes through the listing part by part. Embeddings that are there already, in the index or in the parts of a
run that was interrupted, are taken by identity; the others are made and kept as a part at once. The files of the index
come out in the order of the listing, so they are what a new index would hold.

With several ranks each first makes its share of the parts (`zerovl.indexing.ranks`); the update then finds them.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.encoding import EncodedPictures, encode_pictures
from zerovl.files import read_json, write_json
from zerovl.indexing.alone import alone
from zerovl.indexing.index import (
    BROKEN,
    DTYPES,
    FILE,
    KINDS,
    PARTS,
    Description,
    Maker,
    approximate_files,
    check_same_model,
    is_own_file,
    read_description,
)
from zerovl.indexing.known import Known, parts_in, write_part
from zerovl.indexing.listing import Listed, Listing, in_parts
from zerovl.indexing.writing import IndexWriter
from zerovl.log import logger
from zerovl.text_format import names

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder

PART = 2048  # pictures; what an interruption costs at most
BATCH = 128
_MADE_WITH = "made-with.json"  # of the parts
_REASONS = 5  # that a message names
Embeddings = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Updated:
    """What became of an update."""

    description: Description
    new: int  # pictures that are new or have changed
    kept: int  # that are as they were in the index before
    gone: int  # that were in it, and are gone or have changed
    reasons: Counter[str]  # why others have none


def update(
    folder: Path,
    listing: Listing,
    encoder: Encoder,
    reference: str,
    dtype: str | None = None,
    prefill: Callable[[], None] = lambda: None,
) -> Updated:
    """Bring the index in `folder` up to date with a listing.

    Args:
        folder: of the index; made where it is not there.
        listing: the pictures.
        encoder: the model; another one than that of an index that is there is refused.
        reference: what the model is called.
        dtype: of the stored embeddings; None: as they are, float32 for a new index.
        prefill: called when the folder is ready and before anything is embedded, to make parts.

    Raises:
        ZeroVLError: the folder is something else, is of another model or other pictures, is being updated by another
            process, or none of the pictures can be embedded.
    """
    is_new = not folder.exists()
    with alone(folder), _nothing_left_of_nothing(folder, is_new):
        before = prepared(folder, listing.root, Maker.of(encoder, reference), dtype, encoder.encode_text([""]).shape[1])
        prefill()
        known = known_in(folder, before)
        described = replace(before, images=str(listing.root.absolute()), number=before.number + 1)
        kept = 0
        own = Known([(before.file(folder, "identities"), before.file(folder, "embeddings"))] if before.number else [])
        with IndexWriter(folder, described) as writer:
            for part in in_parts(tqdm(listing, desc="listed", unit="", leave=False), PART):
                good, embeddings = _embedded(folder, known, part, encoder, writer)
                if good:
                    kept += int((own.places([one.identity for one in good]) >= 0).sum())
                    writer.add(good, embeddings)
            if not writer.rows:
                raise ZeroVLError(
                    f"{listing.root}: none of its pictures can be embedded; {reasons_of(writer.reasons)}; "
                    f"first {', '.join(writer.first_broken)}"
                )
        described = replace(described, pictures=writer.rows, broken=writer.reasons.total(), digest=writer.digest)
        put_in_place(folder, described)
        return Updated(described, writer.rows - kept, kept, before.pictures - kept, writer.reasons)


def known_in(folder: Path, described: Description | None) -> Known:
    """Return the embeddings that an index, where there is one, and the parts beside it hold."""
    files = parts_in(folder / PARTS)
    if described is not None and described.number:
        files.append((described.file(folder, "identities"), described.file(folder, "embeddings")))
    return Known(files)


def make_part(folder: Path, missing: list[Listed], encoder: Encoder) -> EncodedPictures:
    """Embed some pictures of a listing, and keep what came out of it for whoever goes on."""
    encoded = encode_pictures([one.picture for one in missing], encoder.transform, [encoder.encode_pixels], BATCH)
    rows = encoded.rows.tolist()
    if rows:
        write_part(folder / PARTS, [missing[row].identity for row in rows], encoded.outputs[0].numpy())
    return encoded


def without_problem(part: list[Listed]) -> list[Listed]:
    """Return what of a part of a listing is a picture."""
    return [one for one in part if not one.problem]


def reasons_of(reasons: Counter[str]) -> str:
    """Return the commonest reasons with their counts."""
    return names([f"{count:,} {reason}" for reason, count in reasons.most_common()], _REASONS)


def _embedded(
    folder: Path, known: Known, part: list[Listed], encoder: Encoder, writer: IndexWriter
) -> tuple[list[Listed], Embeddings]:
    """Return the pictures of a part that have embeddings, and these (n, D)."""
    for one in part:
        if one.problem:
            writer.add_broken(one.key, one.problem)
    usable = without_problem(part)
    places = known.places([one.identity for one in usable])  # (n,)
    there, missing = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
    rows, embeddings = [there], []
    if len(there):
        embeddings.append(known.embeddings(places[there]))
    if len(missing):
        encoded = make_part(folder, [usable[row] for row in missing.tolist()], encoder)
        for row, reason in encoded.broken:
            writer.add_broken(usable[missing[row]].key, reason)
        if len(encoded.rows):
            rows.append(missing[encoded.rows])
            embeddings.append(encoded.outputs[0].numpy())
    together = np.concatenate(rows)
    order = np.argsort(together)
    good = [usable[row] for row in together[order].tolist()]
    return good, np.concatenate(embeddings)[order] if embeddings else np.empty((0, 0), np.float32)


@contextmanager
def _nothing_left_of_nothing(folder: Path, is_new: bool) -> Iterator[None]:
    """Remove after an error the folder of parts in which there is none, and the index's own where it is new."""
    try:
        yield
    except ZeroVLError:
        if not parts_in(folder / PARTS):
            shutil.rmtree(folder / PARTS, ignore_errors=True)
            if is_new:
                with suppress(OSError):  # something else was put into it meanwhile
                    folder.rmdir()
        raise


def prepared(folder: Path, images: Path | None, model: Maker, dtype: str | None, width: int) -> Description:
    """Return what a folder has already, with number 0 where it has nothing; only parts that fit are kept.

    Raises `ZeroVLError` where it is something else, or an index of another model, other pictures or another dtype.
    """
    before = read_description(folder)
    if before is None:
        _check_not_in_the_way(folder)
        before = Description(model, width, dtype or DTYPES[0], 0, 0, "", 0)
    check_same_model(folder, before.model, model.reference, model.digest)
    if dtype not in (None, before.dtype):
        raise ZeroVLError(f"{folder}: holds {before.dtype}, not {dtype}; name another folder, or remove it")
    moved = not before.images or not Path(before.images).exists()
    if images is not None and not moved and Path(before.images) != images.absolute():
        raise ZeroVLError(
            f"{folder}: holds the pictures of {before.images}, not of {images}; name another folder, or remove it"
        )
    parts = folder / PARTS
    if parts.is_dir() and not _made_with(parts, model):
        logger().info(f"{parts}: of another model, so they are made again")
        shutil.rmtree(parts)
    if not parts.is_dir():
        write_json(parts / _MADE_WITH, asdict(model))
    return before


def check_parts(folder: Path, encoder: Encoder) -> None:
    """Raise `ZeroVLError` where the parts beside an index are not of this model: an alias may have moved meanwhile."""
    noted, found = read_json(folder / PARTS / _MADE_WITH)["digest"], encoder.digest
    if found != noted:
        raise ZeroVLError(
            f"{folder}: begun with model {noted[:12]}, and what was loaded now is {found[:12]}; its alias has moved, "
            "so name the version instead and run it again"
        )


def _made_with(parts: Path, model: Maker) -> bool:
    try:
        return bool(read_json(parts / _MADE_WITH)["digest"] == model.digest)
    except (ZeroVLError, KeyError, TypeError):
        return False


def _check_not_in_the_way(folder: Path) -> None:
    others = sorted(path.name for path in folder.iterdir() if not is_own_file(path.name))
    if others:
        raise ZeroVLError(
            f"{folder}: not an index, and {others[0]!r} is in it; name a folder that is empty or not there yet"
        )


def put_in_place(folder: Path, described: Description) -> None:
    """Make the files that were written the index, and remove those of before.

    Files for approximate search stay: whoever opens the index sees whether they are of its embeddings, and says so.
    """
    write_json(folder / FILE, described.to_json())
    current = {described.file(folder, kind).name for kind in KINDS} | {FILE, BROKEN, PARTS}
    current |= {path.name for path in approximate_files(folder)}
    for path in folder.iterdir():
        if path.name not in current and is_own_file(path.name):
            path.unlink()
    shutil.rmtree(folder / PARTS, ignore_errors=True)
