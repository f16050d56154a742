"""Memory of `zerovl evaluate` with many pairs beside their embeddings: see "Many pairs" in docs/evaluation.md.

    python -m benchmarks.bench_pool            # some 20 minutes of one core, and 3 GiB
    python -m benchmarks.bench_pool --smoke --out /dev/shm/pool.json

What a model makes is drawn at random, and everything behind it is what `evaluate` does: embeddings of a trained and an
untrained model brought together, both ranked, scored with intervals, figures by query written, a gallery chosen. Each
figure is of a fresh process: the kernel's own count of resident memory, at its peak, over what the libraries had taken
before. The narrow embeddings are ranked, too; of the wide ones, whose ranking takes hours of a core, only their making
is measured. Ranking needs a few tiles of scores, whatever their width.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.child import Runner, in_child
from benchmarks.common import MIB, RESULTS, Record, Results, forget_peak, peak_resident, resident, rounded
from zerovl.data.batches.evaluation import EvaluationBatch
from zerovl.evaluation.metrics import OVERALL
from zerovl.evaluation.pool import Embeddings, Pool, encode
from zerovl.evaluation.report import gallery
from zerovl.evaluation.scores import score, table, write_queries
from zerovl.params import EvaluateParams

BATCH = 128
_COMMON = 50  # each so many captions are one and the same text


@dataclass(frozen=True)
class Settings:
    pictures: int = 100_000
    captions: int = 5  # of a picture
    ranked_width: int = 64
    width: int = 512
    resamples: int = 1000


SMOKE = Settings(pictures=300, ranked_width=8, width=16, resamples=10)


def main(arguments: Sequence[str] | None = None, runner: Runner = in_child) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "pool.json", help="result file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; give --out another file")
    options = parser.parse_args(arguments)
    settings = SMOKE if options.smoke else Settings()
    results = Results(options.out, asdict(settings))
    sizes = {"pictures": settings.pictures, "captions": settings.captions}
    results.add("pool", "embedded", runner("benchmarks.bench_pool:embedded", width=settings.width, **sizes))
    sizes |= {"width": settings.ranked_width, "resamples": settings.resamples}
    for name, share in (("evaluated, a quarter", 4), ("evaluated", 1)):  # the time grows with the square
        part = sizes | {"pictures": settings.pictures // share}
        results.add("pool", name, runner("benchmarks.bench_pool:evaluated", **part))
    return results.status()


def embedded(pictures: int, captions: int, width: int) -> Record:
    """Embeddings of both models, each in its place."""
    return _measured(pictures, width, lambda: _encoded(pictures, captions, width)[1])


def evaluated(pictures: int, captions: int, width: int, resamples: int) -> Record:
    """Embeddings of both models, and everything that is made of them."""

    def evaluate() -> list[Embeddings]:
        settings = EvaluateParams(bootstrap=resamples)
        pool, both = _encoded(pictures, captions, width)
        scores = score(pool, *both, settings.chunk, settings.bootstrap, settings.seed)
        table(pool, scores, settings.bootstrap, settings.seed)
        gallery.choose(pool, both[0], scores[OVERALL], settings.gallery, settings.seed)
        with tempfile.TemporaryDirectory() as folder:
            write_queries(Path(folder) / "queries.parquet", pool, scores)
        return both

    return _measured(pictures, width, evaluate)


def _measured(pictures: int, width: int, work: Callable[[], list[Embeddings]]) -> Record:
    torch.set_num_threads(1)
    _encoded(10, 2, width)  # the libraries' own start-up is not counted
    forget_peak()
    before, wall, cpu = resident(), time.perf_counter(), time.process_time()
    both = work()
    peak = peak_resident() - before
    own = sum(its.numel() * its.element_size() for model in both for its in (model.image, model.text))
    return {
        "pictures": pictures,
        "width": width,
        "embeddings_mib": rounded(own / MIB),
        "beyond_mib": rounded((peak - own) / MIB),
        "cpu_seconds": rounded(time.process_time() - cpu),
        "seconds": rounded(time.perf_counter() - wall),
    }


def _encoded(pictures: int, captions: int, width: int) -> tuple[Pool, list[Embeddings]]:
    batches = {"drawn": (pictures, _batches(pictures, captions))}
    return encode(batches, [_Drawn(width, seed) for seed in range(2)], BATCH)


def _batches(pictures: int, captions: int) -> Iterator[EvaluationBatch]:
    pixels = torch.zeros(BATCH, 3, 1, 1, dtype=torch.uint8)
    for start in range(0, pictures, BATCH):
        ids = list(range(start, min(start + BATCH, pictures)))
        texts = [[_caption(captions * number + place) for place in range(captions)] for number in ids]
        yield EvaluationBatch(pixels[: len(ids)], texts, ids, [f"{number:09d}" for number in ids])


def _caption(number: int) -> str:
    return f"a caption of a picture, about as long as people write: {number if number % _COMMON else 0}"


class _Drawn:
    """A model that draws its embeddings."""

    def __init__(self, width: int, seed: int) -> None:
        self._width = width
        self._generator = torch.Generator().manual_seed(seed)

    def transform(self, picture: Image.Image) -> Tensor:
        raise NotImplementedError("pictures are not read")

    def encode_pixels(self, images: Tensor) -> Tensor:
        """Draw embeddings for pixels (n, 3, H, W): (n, D)."""
        return self._drawn(len(images))

    def encode_text(self, captions: Sequence[str], batch_size: int = BATCH) -> Tensor:
        """Draw embeddings for captions: (n, D)."""
        return self._drawn(len(captions))

    def _drawn(self, rows: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(rows, self._width, generator=self._generator), dim=1)


if __name__ == "__main__":
    sys.exit(main())
