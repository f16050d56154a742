"""`zerovl index`: the embeddings of pictures in a folder, for `zerovl search` and `zerovl serve`."""

from __future__ import annotations

from pathlib import Path

from zerovl import own_gpus
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.registry import fetch
from zerovl.text_format import plural

_STORED = (".npz", ".parquet")  # of `zerovl.indexing.arrays`


def run(
    model: str,
    images: Path,
    csv: Path | None,
    out: Path,
    dtype: str | None,
    ranks: int | None,
    approximate: bool = False,
) -> None:
    """Make an index of pictures, or bring it up to date, and say what became of it.

    Args:
        model: a bundle's folder, or a release by reference.
        images: a folder of pictures and tars, one tar, or an .npz or .parquet of `zerovl embed`.
        csv: names the pictures of `images` that are meant in its column `image`; None: all.
        out: the folder of the index.
        dtype: what embeddings are stored as; None: as the index has them, float32 for a new one.
        ranks: processes that embed; None: one a free GPU, else one.
        approximate: also make the file for approximate search.
    """
    if ranks is not None and ranks < 1:
        raise ZeroVLError(f"--ranks {ranks}: must be 1 or more")
    is_stored = images.suffix in _STORED and not images.is_dir()
    if is_stored and csv is not None:
        raise ZeroVLError(f"--pairs {csv}: {images} has its own rows; leave --pairs out")
    if is_stored and not images.is_file():
        raise ZeroVLError(f"{images}: no such file; give an .npz or .parquet of `zerovl embed`")
    fetch.check_reference(model)
    if approximate:
        from zerovl.indexing.approximate import check_installed

        check_installed()  # before pictures are embedded
    if is_stored:
        _copy(model, images, out, dtype)
    else:
        _embed(model, images, csv, out, dtype, ranks)
    if approximate:
        _make_approximate(out)


def _embed(model: str, images: Path, csv: Path | None, out: Path, dtype: str | None, ranks: int | None) -> None:
    from zerovl.indexing.listing import listing_of

    listing = listing_of(images, csv)
    processes = own_gpus.take_for(ranks, "index")
    import zerovl  # and torch: after what was asked for is known to be there
    from zerovl.indexing.index import BROKEN
    from zerovl.indexing.ranks import make_shares
    from zerovl.indexing.update import reasons_of, update

    def prefill() -> None:
        if processes > 1:
            make_shares(out, listing, zerovl.load, model, processes)

    done = update(out, listing, zerovl.load(model), model, dtype, prefill)
    if done.reasons:
        count = plural(done.reasons.total(), "input")
        logger().warning(f"{count} left out ({reasons_of(done.reasons)}); {out / BROKEN} lists them")
    pictures, width = plural(done.description.pictures, "picture"), done.description.width
    print(f"{out}: {pictures}, {width} wide: {done.new:,} new, {done.kept:,} as before, {done.gone:,} gone")


def _copy(model: str, file: Path, out: Path, dtype: str | None) -> None:
    import zerovl
    from zerovl.indexing.arrays import index_arrays

    done = index_arrays(out, file, zerovl.load(model), model, dtype)
    print(f"{out}: {plural(done.pictures, 'picture')} of {file}, {done.width} wide")


def _make_approximate(out: Path) -> None:
    from zerovl.indexing.approximate import make

    path, was_there = make(out)
    print(f"{path}: {'as before' if was_there else 'made'}, for approximate search")
