"""A file beside an index by which a search looks at a share of the pictures alone; made and read by faiss.

    INDEX/approximate-DIGEST.faiss    for embeddings with this digest (`Description.digest`), and no others

The embeddings lie in lists of near ones, with 8 bits a number (faiss's IVF with SQ8). A query is compared with the
pictures of the lists whose centres are nearest, and the best of these are scored again with the embeddings of the
index: what is found is of the index, with its exact score, and only what lies in other lists is missed. The reference
is `zerovl.indexing.search.nearest`.

Shapes: `N` pictures, `D` embedding width, `L` lists, `c` pictures at a time.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write
from zerovl.indexing.alone import alone
from zerovl.indexing.index import Description, Index, approximate_files
from zerovl.indexing.search import Nearest, Query, nearest, widened
from zerovl.log import logger

INSTALL = "pip install 'zerovl[search-faiss]'"
CHUNK = 1 << 14  # embeddings added at once
_LISTS = 2.0  # times the root of N, which balances looking for lists and looking into them
_TRAINED_ON = 64  # embeddings a list; faiss asks for 39 at least
_SHARE, _FEWEST = 8, 16  # a search looks into L / _SHARE lists, and at least into _FEWEST
_MORE, _AT_LEAST = 2, 100  # candidates scored again: _MORE times those asked for, and _AT_LEAST


def check_installed() -> None:
    """Raise `ZeroVLError` with the command that installs faiss where it is not there."""
    if find_spec("faiss") is None:
        raise ZeroVLError(f"faiss is not installed, and approximate search needs it; run `{INSTALL}`")


def make(folder: Path) -> tuple[Path, bool]:
    """Make the file for an index as it is now, and remove those of before; returns it, and whether it was there whole.

    In memory are 8 bits a number of all embeddings, and what the centres are learned from. Raises `ZeroVLError`
    where faiss is missing, `folder` is not an index, or another process works on it.
    """
    check_installed()
    with alone(folder):
        index = Index(folder)
        if not index.description.digest:
            raise ZeroVLError(f"{folder}: says no digest of its embeddings; run `zerovl index` again, which adds it")
        path = path_of(folder, index.description)
        was_there = _fits(path, index.embeddings)
        if not was_there:
            write_lists(index.embeddings, path)
        for other in approximate_files(folder):
            if other != path:
                other.unlink()
    return path, was_there


def open_nearest(index: Index) -> Nearest:
    """Return how an index is searched: with the file that fits it, else exactly, and say on the log which and why."""
    path, found = path_of(index.folder, index.description), approximate_files(index.folder)
    if not found:
        return nearest
    again = "all pictures are looked at; run `zerovl index --approximate` again, or remove it"
    if path not in found:
        logger().warning(f"{found[0]}: of other embeddings than the index has now, so {again}")
        return nearest
    if find_spec("faiss") is None:
        logger().warning(f"{path}: not used, as faiss is not installed: all pictures are looked at; run `{INSTALL}`")
        return nearest
    try:
        opened = Approximate(path, *index.embeddings.shape)
    except ZeroVLError as error:
        logger().warning(f"{error}, so {again}")
        return nearest
    looked_into, lists = opened.lists
    logger().info(f"approximate, in {looked_into} of {lists} lists of {path.name}; --exact looks at all pictures")
    return opened


def path_of(folder: Path, described: Description) -> Path:
    """Return the file for the embeddings that an index has now."""
    return folder / f"approximate-{described.digest[:16]}.faiss"


class Approximate:
    """Finds near embeddings by a file of `make`, which is mapped; to be called as `zerovl.indexing.search.nearest`."""

    def __init__(self, path: Path, pictures: int, width: int) -> None:
        """Open a file for embeddings (N, D); raises `ZeroVLError` for one that is damaged or of another size."""
        import faiss

        try:
            self._lists = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError:  # its message has lines of C++
            raise ZeroVLError(f"{path}: damaged, or of a version of faiss that is not this one") from None
        if not isinstance(self._lists, faiss.IndexIVF):
            raise ZeroVLError(f"{path}: {type(self._lists).__name__}, not lists of embeddings")
        if (self._lists.ntotal, self._lists.d) != (pictures, width):
            found = f"{self._lists.ntotal} pictures, {self._lists.d} wide"
            raise ZeroVLError(f"{path}: of {found}, not {pictures}, {width} wide")
        # faiss reads ahead with threads that it starts for each query, which takes longer than most queries.
        faiss.downcast_InvertedLists(self._lists.invlists).prefetch_nthread = 0

    @property
    def lists(self) -> tuple[int, int]:
        """Return how many lists a search looks into, and how many there are."""
        return self._lists.nprobe, self._lists.nlist

    def __call__(
        self, embeddings: npt.NDArray[np.floating], query: Query, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return rows and exact scores of k near ones of (N, D) for one query (D,), best first, ties in order of rows.

        Where the lists that are looked into have fewer than k, all embeddings are looked at.
        """
        candidates = min(_MORE * k + _AT_LEAST, len(embeddings))
        _, found = self._lists.search(query[None], candidates)  # (1, candidates), -1: no more
        rows = np.sort(found[0][found[0] >= 0])
        if len(rows) < min(k, len(embeddings)):
            return nearest(embeddings, query, k)
        scores = widened(embeddings[rows]) @ query  # (candidates,)
        best = np.argsort(-scores, kind="stable")[:k]
        return rows[best], scores[best]


def write_lists(embeddings: npt.NDArray[np.floating], path: Path) -> None:
    """Write all embeddings (N, D) in lists; the same file for the same embeddings, faiss and number of threads."""
    import faiss

    pictures, width = embeddings.shape
    count = max(1, min(round(_LISTS * pictures**0.5), pictures // _TRAINED_ON))
    lists = faiss.index_factory(width, f"IVF{count},SQ8", faiss.METRIC_INNER_PRODUCT)
    lists.cp.spherical = True  # centres of length 1, as the embeddings are
    lists.cp.min_points_per_centroid = 1  # no warning of small indexes
    lists.nprobe = min(count, max(_FEWEST, count // _SHARE))  # it is kept in the file
    sample = np.unique(np.linspace(0, pictures - 1, count * _TRAINED_ON).round().astype(np.int64))
    lists.train(embeddings[sample].astype(np.float32))
    for start in range(0, pictures, CHUNK):
        lists.add(np.ascontiguousarray(embeddings[start : start + CHUNK], np.float32))  # (c, D)
    with atomic_write(path) as file:
        faiss.write_index(lists, faiss.PyCallbackIOWriter(file.write))


def _fits(path: Path, embeddings: npt.NDArray[np.floating]) -> bool:
    """Whether the file is there and can be read."""
    try:
        return path.is_file() and Approximate(path, *embeddings.shape).lists[1] > 0
    except ZeroVLError:
        return False
