"""Approximate search against the exact one, by what the embeddings are like: see "Many millions" in docs/use.md.

OPENBLAS_NUM_THREADS=1 python -m benchmarks.bench_search            # a minute; needs the extra search-faiss
python -m benchmarks.bench_search --smoke --out /dev/shm/search.json

CPU time of one thread. In random embeddings nothing is like anything else, which is the worst case; in clustered ones
pictures lie around centres, as those of a trained model do. The index is in the page cache.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.common import MIB, RESULTS, Record, Results, interleaved, measured, rounded, summary
from zerovl.indexing.approximate import Approximate, check_installed, write_lists
from zerovl.indexing.search import Nearest, nearest

TOP = 10
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    pictures: int = 200_000
    width: int = 256
    queries: int = 100
    clusters: int = 2_000
    spread: float = 0.7  # of a cluster, where its centre has 1


SMOKE = Settings(pictures=1000, width=16, queries=4, clusters=20)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "search.json", help="result file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; give --out another file")
    options = parser.parse_args(arguments)
    check_installed()
    import faiss

    faiss.omp_set_num_threads(1)
    settings = SMOKE if options.smoke else Settings()
    results = Results(options.out, {**asdict(settings), "faiss": faiss.__version__})
    for name, draw in (("random", drawn), ("clustered", clustered)):
        results.add("search", name, measured(partial(compared, draw, settings)))
    return results.status()


def drawn(settings: Settings) -> Floats:
    """Random directions, the queries behind the pictures; (N + queries, D)."""
    generator = np.random.default_rng(0)
    return generator.standard_normal((settings.pictures + settings.queries, settings.width), dtype=np.float32)


def clustered(settings: Settings) -> Floats:
    """Directions around centres; (N + queries, D)."""
    generator = np.random.default_rng(1)
    centres = generator.standard_normal((settings.clusters, settings.width), dtype=np.float32)
    return centres[generator.integers(0, len(centres), settings.pictures + settings.queries)] + np.float32(
        settings.spread
    ) * drawn(settings)


def compared(draw: Callable[[Settings], Floats], settings: Settings) -> Record:
    """Seconds to make the file, seconds a query of both searches, and the share of the nearest that is found."""
    together = draw(settings)
    together /= np.linalg.norm(together, axis=1, keepdims=True)
    queries = together[settings.pictures :]
    with tempfile.TemporaryDirectory() as folder:
        file, path = Path(folder) / "embeddings.npy", Path(folder) / "lists.faiss"
        np.save(file, together[: settings.pictures])
        embeddings = np.load(file, mmap_mode="r")
        start = time.process_time()
        write_lists(embeddings, path)
        seconds = time.process_time() - start
        approximate = Approximate(path, *embeddings.shape)
        return {
            "making_seconds": rounded(seconds),
            "mib": rounded(path.stat().st_size / MIB),
            "lists": approximate.lists,
            **_timed(embeddings, queries, approximate),
            f"recall_{TOP}": rounded(_recall(embeddings, queries, approximate)),
        }


def _timed(embeddings: Floats, queries: Floats, approximate: Nearest) -> Record:
    """One query a round, the same for both."""
    found = {}
    for name, search in (("exact", nearest), ("approximate", approximate)):
        found[name] = partial(_next, search, embeddings, cycle(queries))
    timed = interleaved(found, len(queries), time.process_time)
    return {f"{name}_seconds": summary(seconds)["seconds"] for name, seconds in timed.items()}


def _next(search: Nearest, embeddings: Floats, queries: cycle[Floats]) -> None:
    search(embeddings, next(queries), TOP)


def _recall(embeddings: Floats, queries: Floats, approximate: Nearest) -> float:
    shares = [
        len({*approximate(embeddings, query, TOP)[0].tolist()} & {*nearest(embeddings, query, TOP)[0].tolist()})
        for query in queries
    ]
    return float(np.mean(shares)) / TOP


if __name__ == "__main__":
    sys.exit(main())
