"""`zerovl embed`: the pairs of a CSV, or all pictures of a folder, as embeddings in a file.

What is broken is left out, counted with its reason and listed in a CSV beside the output. A command that was
interrupted goes on where it was. Nothing heavy is imported before what was asked for is known to be there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from zerovl import own_gpus
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.registry import fetch
from zerovl.text_format import plural


def run(model: str, pairs: Path, images: Path, out: Path, ranks: int | None) -> None:
    """Write the pairs of a CSV with the embeddings of both sides; `zerovl.indexing.pairs_files` has the kinds of files.

    One row a usable row of the CSV, in its order; a picture of several rows is encoded once. The others are listed in
    `OUT.broken.csv`, which is not there where there are none. Memory does not grow with the embeddings. `ranks` as
    `own_gpus.take_for` has them.
    Raises `ZeroVLError` where the CSV as a whole cannot be read, or has no usable row.
    """
    _check_ranks(ranks)
    from zerovl.indexing.listing import CsvListing
    from zerovl.indexing.pairs_target import PICTURES, PairsTarget, check_any_picture, check_suffix

    check_suffix(out)
    listing, target = CsvListing(images, pairs), PairsTarget(out)
    check_any_picture(listing)
    target.check()
    fetch.check_reference(model)
    processes = own_gpus.take_for(ranks, "embed")
    import zerovl  # and torch
    from zerovl.indexing.pairs_table import write_pairs
    from zerovl.indexing.ranks import make_shares
    from zerovl.indexing.update import reasons_of

    def prefill() -> None:
        if processes > 1:
            make_shares(target.parts / PICTURES, listing, zerovl.load, model, processes)

    done = write_pairs(listing, target, zerovl.load(model), model, prefill)
    every, told = plural(done.rows + done.left_out.total(), "row"), reasons_of(done.left_out)
    if not done.rows:
        raise ZeroVLError(f"{pairs}: none of its {every} can be embedded ({told}); {target.left_out} lists them")
    if done.left_out:
        count = f"{done.left_out.total():,} of {every} of {pairs}"
        logger().warning(f"{count} are left out ({told}); {target.left_out} lists them")
    else:
        target.left_out.unlink()
    shutil.rmtree(target.parts)
    counts = f"{plural(done.rows, 'caption')} and {plural(done.pictures.pictures, 'picture')}"
    print(f"{out}: {counts}, {done.pictures.width} wide")


def run_pictures(model: str, images: Path, out: Path, ranks: int | None) -> None:
    """Write the embeddings of all pictures of a folder and the tars in it, or of one tar, with keys and places.

    `zerovl.indexing.embeddings_file` has the two kinds of files; memory does not grow with the embeddings. `ranks` as
    `own_gpus.take_for` has them.
    Raises `ZeroVLError` where there are no pictures, or none that can be embedded.
    """
    _check_ranks(ranks)
    fetch.check_reference(model)
    from zerovl.indexing.embeddings_file import write_embeddings
    from zerovl.indexing.listing import listing_of
    from zerovl.indexing.pairs_target import PairsTarget, check_suffix

    check_suffix(out)
    listing, target = listing_of(images, None), PairsTarget(out)
    parts = target.parts
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
    target.left_out.unlink(missing_ok=True)  # of an earlier run
    if done.reasons:
        os.replace(parts / BROKEN, target.left_out)
        count = plural(done.reasons.total(), "input")
        logger().warning(f"{count} left out ({reasons_of(done.reasons)}); {target.left_out} lists them")
    shutil.rmtree(parts)
    print(f"{out}: {plural(done.description.pictures, 'picture')}, {done.description.width} wide")


def _check_ranks(ranks: int | None) -> None:
    if ranks is not None and ranks < 1:
        raise ZeroVLError(f"--ranks {ranks}: must be 1 or more")
