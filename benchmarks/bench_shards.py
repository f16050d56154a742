"""What reading shards from S3 costs, and how well blocks of shards mix: see docs/streaming.md.

python -m benchmarks.bench_shards            # about three minutes
python -m benchmarks.bench_shards --smoke --out /dev/shm/shards.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.child import Runner, in_child
from benchmarks.common import RESULTS, Results
from benchmarks.mixing import mixing
from benchmarks.shard_reading import on_a_line, reading


@dataclass(frozen=True)
class Settings:
    pairs: int = 1_000_000
    shard_pairs: int = 1000
    batch: int = 4096
    batches: int = 50
    groups: tuple[int, ...] = (0, 8, 32, 128)
    read_shards: int = 12
    read_samples: int = 250
    picture_bytes: int = 61_000
    read_batch: int = 250
    rounds: int = 7
    lines: tuple[int, ...] = (25, 50, 100)  # MB/s
    scales: tuple[int, ...] = (1_000_000, 10_000_000, 100_000_000)
    scale_batch: int = 16384


SMOKE = Settings(
    pairs=500,
    shard_pairs=20,
    batch=16,
    batches=4,
    groups=(0, 4),
    read_shards=5,
    read_samples=8,
    picture_bytes=500,
    read_batch=10,
    rounds=1,
    lines=(1,),
    scales=(3000,),
    scale_batch=16,
)


def main(arguments: Sequence[str] | None = None, runner: Runner = in_child) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "shards.json", help="result file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; give --out another file")
    options = parser.parse_args(arguments)
    settings = SMOKE if options.smoke else Settings()
    results = Results(options.out, asdict(settings))
    for group in settings.groups:
        name = f"blocks of {group} shards" if group else "global"
        record = mixing(group, settings.pairs, settings.shard_pairs, settings.batch, settings.batches)
        results.add("mixing", name, record)
    with tempfile.TemporaryDirectory() as work:
        sizes = (settings.read_shards, settings.read_samples, settings.picture_bytes, settings.read_batch)
        for name, record in reading(Path(work), *sizes, settings.rounds).items():
            results.add("reading", name, record)
        for rate in settings.lines:
            name = f"cache, cold, a line of {rate} MB/s"
            results.add("reading", name, on_a_line(Path(work), rate * 1e6, settings.read_batch, settings.rounds))
    for pairs in settings.scales:
        for shuffle in ("global", "blocks"):
            record = runner("benchmarks.sampler_scale:scale", pairs=pairs, shuffle=shuffle, batch=settings.scale_batch)
            results.add("scale", f"{pairs}, {shuffle}", record)
    return results.status()


if __name__ == "__main__":
    sys.exit(main())
