"""What reading shards from S3 costs, and how well blocks of shards mix: see docs/streaming.md.

python -m benchmarks.bench_shards            # about a minute
python -m benchmarks.bench_shards --smoke --out /dev/shm/shards.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.common import RESULTS, Results
from benchmarks.mixing import mixing


@dataclass(frozen=True)
class Settings:
    pairs: int = 1_000_000
    shard_pairs: int = 1000
    batch: int = 4096
    batches: int = 50
    groups: tuple[int, ...] = (0, 8, 32, 128)


SMOKE = Settings(pairs=500, shard_pairs=20, batch=16, batches=4, groups=(0, 4))


def main(arguments: Sequence[str] | None = None) -> int:
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
    return results.status()


if __name__ == "__main__":
    sys.exit(main())
