"""`zerovl embed`: the pairs of a CSV, or all pictures of a folder, as embeddings in a file.

What is broken is left out, counted with its reason and listed in a CSV beside the output. A command that was
interrupted goes on where it was (`zerovl.model.embedding_parts`).
"""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zerovl import own_gpus
from zerovl.data.raw.file_names import FileNames
from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write, sha256_json
from zerovl.indexing.pairs import LeftOut, Pair, each_row
from zerovl.log import logger
from zerovl.registry import fetch
from zerovl.text_format import names, plural, size

if TYPE_CHECKING:
    from zerovl.model.embedding_parts import Part
    from zerovl.model.encoder import Encoder

BATCH = 128
_REASONS = 5  # that the summary names


def run(model: str, pairs: Path, images: Path, out: Path) -> None:
    """Write an .npz with `image_embeddings` (M, D), `text_embeddings` (M, D), `image_id`, `caption_id`, `image` (M,).

    It also says `model`, its digest, and `images`, their folder.

    One row a usable row of the CSV, in its order; a picture of several rows is encoded once. The others are listed in
    `OUT.broken.csv`, which is not there where there are none.
    Raises `ZeroVLError` where the CSV as a whole cannot be read, or has no usable row.
    """
    rows, left_out = read_pairs(pairs)
    pictures = list(dict.fromkeys(row.image for row in rows))
    files = FileNames(images)
    if not any(os.path.isfile(files.find(picture).path) for picture in pictures):
        wrong = left_out[0] if left_out and not rows else LeftOut(rows[0].lines, rows[0].image, f"not in {images}")
        raise ZeroVLError(
            f"{pairs}: none of its {plural(len(rows) + len(left_out), 'row')} can be embedded; line {wrong.lines}: "
            f"{wrong.image!r}: {wrong.reason}; correct the CSV, or give the folder of the pictures with --images"
        )
    fetch.check_reference(model)
    own_gpus.take(own_gpus.count_up_to(1), "embed")
    import numpy as np  # and torch: after what was asked for is known to be there

    import zerovl
    from zerovl.model.embedding_parts import Parts

    encoder = zerovl.load(model)
    captions = list(dict.fromkeys(row.caption for row in rows))
    _check_memory(out, len(rows), len(pictures) + len(captions), encoder.encode_text([""]).shape[1])
    parts = Parts(out, _description(encoder, images, files, pictures, captions))
    of_pictures = parts.embed("pictures", pictures, lambda part: _encode_pictures(encoder, files, part))
    of_captions = parts.embed("captions", captions, lambda part: _encode_captions(encoder, part))
    reasons = {pictures[place]: reason for place, reason in of_pictures.broken.items()}
    left_out += [LeftOut(row.lines, row.image, reasons[row.image]) for row in rows if row.image in reasons]
    rows = [row for row in rows if row.image not in reasons]
    _report(out, pairs, len(rows), left_out)
    image_row = {pictures[place]: row for row, place in enumerate(of_pictures.rows.tolist())}
    caption_row = {caption: row for row, caption in enumerate(captions)}
    arrays = {
        "image_embeddings": of_pictures.embeddings[[image_row[row.image] for row in rows]],  # (M, D)
        "text_embeddings": of_captions.embeddings[[caption_row[row.caption] for row in rows]],  # (M, D)
        "image_id": np.array([row.image_id for row in rows], np.int64),
        "caption_id": np.array([row.caption_id for row in rows], np.int64),
        "image": np.array([row.image for row in rows], np.str_),
        "images": np.array(str(images.absolute())),
        "model": np.array(encoder.digest),
    }
    with atomic_write(out) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    parts.remove()
    width = of_pictures.embeddings.shape[1]
    print(f"{out}: {plural(len(rows), 'caption')} and {plural(len(image_row), 'picture')}, {width} wide")


def run_pictures(model: str, images: Path, out: Path, ranks: int | None) -> None:
    """Write the embeddings of all pictures of a folder and the tars in it, or of one tar, with keys and places.

    `zerovl.indexing.embeddings_file` has the two kinds of files; memory does not grow with the embeddings. `ranks` as
    `own_gpus.take_for` has them.
    Raises `ZeroVLError` where there are no pictures, or none that can be embedded.
    """
    if ranks is not None and ranks < 1:
        raise ZeroVLError(f"--ranks {ranks}: must be 1 or more")
    fetch.check_reference(model)
    from zerovl.indexing.embeddings_file import check_suffix, write_embeddings
    from zerovl.indexing.listing import listing_of

    check_suffix(out)
    listing, parts = listing_of(images, None), out.with_name(f"{out.name}.parts")
    processes = own_gpus.take_for(ranks, "embed")
    import zerovl  # and torch: after what was asked for is known to be there
    from zerovl.indexing.index import BROKEN, Index
    from zerovl.indexing.ranks import make_shares
    from zerovl.indexing.update import reasons_of, update

    def prefill() -> None:
        if processes > 1:
            make_shares(parts, listing, zerovl.load, model, processes)

    done = update(parts, listing, zerovl.load(model), model, prefill=prefill)
    write_embeddings(Index(parts), out)
    broken_file(out).unlink(missing_ok=True)  # of an earlier run
    if done.reasons:
        os.replace(parts / BROKEN, broken_file(out))
        count = plural(done.reasons.total(), "input")
        logger().warning(f"{count} left out ({reasons_of(done.reasons)}); {broken_file(out)} lists them")
    shutil.rmtree(parts)
    print(f"{out}: {plural(done.description.pictures, 'picture')}, {done.description.width} wide")


def run_table(model: str, pairs: Path, images: Path, out: Path, ranks: int | None) -> None:
    """Write a .parquet with the columns of the CSV, `image_embedding` and `text_embedding`, in bounded memory.

    Otherwise as `run`; `zerovl.indexing.pairs_table` has the details.
    """
    if ranks is not None and ranks < 1:
        raise ZeroVLError(f"--ranks {ranks}: must be 1 or more")
    if next(each_row(pairs), None) is None:
        raise ZeroVLError(f"{pairs}: has no rows; give a CSV with at least one pair")
    fetch.check_reference(model)
    processes = own_gpus.take_for(ranks, "embed")
    import zerovl
    from zerovl.indexing.listing import CsvListing
    from zerovl.indexing.pairs_table import PICTURES, write_pairs
    from zerovl.indexing.ranks import make_shares
    from zerovl.indexing.update import reasons_of

    listing, parts = CsvListing(images, pairs), out.with_name(f"{out.name}.parts")

    def prefill() -> None:
        if processes > 1:
            make_shares(parts / PICTURES, listing, zerovl.load, model, processes)

    with atomic_write(broken_file(out), "w") as file:
        done = write_pairs(listing, out, parts, zerovl.load(model), model, file, prefill)
    if done.left_out:
        every = plural(done.rows + done.left_out.total(), "row")
        told = f"{reasons_of(done.left_out)}); {broken_file(out)} lists them"
        logger().warning(f"{done.left_out.total():,} of {every} of {pairs} are left out ({told}")
    else:
        broken_file(out).unlink()
    shutil.rmtree(parts)
    print(f"{out}: {plural(done.rows, 'pair')}")


def read_pairs(path: Path) -> tuple[list[Pair], list[LeftOut]]:
    """Return the pairs of a CSV (see `pairs_csv`), and the rows that are none, with their reasons."""
    good: list[Pair] = []
    left_out: list[LeftOut] = []
    for found in each_row(path):
        if isinstance(found, Pair):
            good.append(found)
        else:
            left_out.append(found)
    if not good and not left_out:
        raise ZeroVLError(f"{path}: has no rows; give a CSV with at least one pair")
    return good, left_out


def broken_file(out: Path) -> Path:
    """Return where the rows that were left out are listed."""
    return out.with_name(f"{out.name}.broken.csv")


def _check_memory(out: Path, rows: int, items: int, width: int) -> None:
    """Raise `ZeroVLError` where the embeddings do not fit into memory: before hours, and not after them.

    Each of the items is there in its part and brought together, then each row has two.
    """
    from zerovl.memory import free_host_memory

    needed, free = 4 * width * 2 * (items + rows), free_host_memory()
    if needed > free:
        raise ZeroVLError(
            f"--out {out}: an .npz is put together in memory, {plural(rows, 'row')} of {width} numbers a side in up to "
            f"{size(needed)}, and {size(free)} is free; name a .parquet, which is written in parts, or split the CSV"
        )


def _description(
    encoder: Encoder, images: Path, files: FileNames, pictures: Sequence[str], captions: Sequence[str]
) -> dict[str, str]:
    """What makes two runs the same: the model, the pictures by name, size and time, the captions."""
    return {
        "model": encoder.digest,
        "images": str(images.absolute()),
        "pictures": sha256_json([[picture, *_size_and_time(files.find(picture).path)] for picture in pictures]),
        "captions": sha256_json(list(captions)),
    }


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a name with a zero byte is a ValueError
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _encode_pictures(encoder: Encoder, files: FileNames, part: Sequence[str]) -> Part:
    """Embed the pictures that can be read."""
    import numpy as np
    import torch

    from zerovl.images import BrokenImageError, decode_rgb
    from zerovl.model.embedding_parts import Part

    broken: dict[int, str] = {}
    rows: list[int] = []
    embeddings: list[torch.Tensor] = []
    for batch in _batches(range(len(part))):
        pixels = []
        for row in batch:
            try:
                pixels.append(encoder.transform(decode_rgb(Path(files.find(part[row]).path).read_bytes())))
                rows.append(row)
            except BrokenImageError as error:
                broken[row] = str(error)
            except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
                broken[row] = getattr(error, "strerror", None) or str(error)
        if pixels:
            embeddings.append(encoder.encode_pixels(torch.stack(pixels)))
    together = torch.cat(embeddings).numpy() if embeddings else np.empty((0, 0), np.float32)
    return Part(np.array(rows, np.int64), together, broken)


def _encode_captions(encoder: Encoder, part: Sequence[str]) -> Part:
    import numpy as np

    from zerovl.model.embedding_parts import Part

    return Part(np.arange(len(part)), encoder.encode_text(list(part), batch_size=BATCH).numpy(), {})


def _report(out: Path, pairs: Path, usable: int, left_out: Sequence[LeftOut]) -> None:
    """List and count what was left out; raises `ZeroVLError` where nothing is left."""
    place = broken_file(out)
    if not left_out:
        place.unlink(missing_ok=True)  # of an earlier run
        return
    with atomic_write(place, "w") as file:
        rows = csv.writer(file)
        rows.writerow(["lines", "image", "reason"])
        rows.writerows((its.lines, its.image, its.reason) for its in left_out)
    counts = Counter(its.reason for its in left_out).most_common()
    told = names([f"{count:,} {reason}" for reason, count in counts], _REASONS)
    every = plural(usable + len(left_out), "row")
    if not usable:
        raise ZeroVLError(f"{pairs}: none of its {every} can be embedded ({told}); {place} lists them")
    logger().warning(f"{len(left_out):,} of {every} of {pairs} are left out ({told}); {place} lists them")


def _batches(rows: range) -> Iterator[range]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
