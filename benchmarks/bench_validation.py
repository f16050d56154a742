"""Time and memory of `zerovl validate` by the number of pairs: see "A hundred million pairs" in docs/streaming.md.

    python -m benchmarks.bench_validation            # some ten minutes of one core, and 4 GB of disk
    python -m benchmarks.bench_validation --smoke --out /dev/shm/validation.json
    python -m benchmarks.bench_validation --pairs 100000000    # an hour and more, and 30 GB of disk

The manifest is drawn: two captions a pair, all keys, ids and pictures different, 20,000 pairs for
evaluation, and nothing behind it, as `validate` opens no shard. Each figure is of a fresh process that has
validated a small manifest before, so what libraries take once is not counted as seconds; the memory is all that the
process has, at its peak.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import drawn_manifest
from benchmarks.child import Runner, in_child
from benchmarks.common import MIB, RESULTS, Record, Results, forget_peak, peak_resident, rounded
from zerovl.files import read_json
from zerovl.params import Params
from zerovl.stages import validate
from zerovl.workspace import Workspace

PAIRS = (1_000_000, 4_000_000, 16_000_000)
SMOKE = (3_000,)
_VALID_PAIRS = 20_000
_LOOK_SECONDS = 0.2


def main(arguments: Sequence[str] | None = None, runner: Runner = in_child) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "validation.json", help="result file")
    parser.add_argument("--pairs", type=int, nargs="+", default=PAIRS, help="numbers of pairs, each a row")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; give --out another file")
    options = parser.parse_args(arguments)
    sizes = SMOKE if options.smoke else options.pairs
    results = Results(options.out, {"valid_pairs": _VALID_PAIRS, "captions": 2})
    for pairs in sizes:
        with tempfile.TemporaryDirectory() as work:
            small, large = (_drawn(Path(work) / name, number) for name, number in (("small", 1_000), ("large", pairs)))
            record = runner("benchmarks.bench_validation:validated", small=str(small), large=str(large))
        results.add("validation", str(pairs), record)
    return results.status()


def validated(small: str, large: str) -> Record:
    """Seconds, peak of memory, and disk beside the manifest that the validation of the large workspace takes."""
    validate.run(Params(), Workspace(Path(small)))
    workspace = Workspace(Path(large))
    forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    with _Disk(workspace.validation_report) as disk:
        validate.run(Params(), workspace)
    return {
        "pairs": read_json(workspace.validation_verdict)["rows"],
        "cpu_seconds": rounded(time.process_time() - cpu),
        "seconds": rounded(time.perf_counter() - wall),
        "peak_mib": rounded(peak_resident() / MIB),
        "scratch_mib": rounded(disk.most / MIB),
        "manifest_mib": rounded(_size(workspace.manifest) / MIB),
    }


def _drawn(folder: Path, pairs: int) -> Path:
    valid = min(_VALID_PAIRS, pairs // 5)
    drawn_manifest.write(Workspace(folder).manifest, pairs - valid, valid)
    return folder


class _Disk:
    """Looks from time to time at how large a folder is, for as long as the block runs."""

    def __init__(self, folder: Path) -> None:
        self.most = 0  # bytes
        self._folder = folder
        self._ended = threading.Event()
        self._looker = threading.Thread(target=self._look)

    def __enter__(self) -> _Disk:
        self._looker.start()
        return self

    def __exit__(self, *of_error: object) -> None:
        self._ended.set()
        self._looker.join()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self.most = max(self.most, _size(self._folder))


def _size(folder: Path) -> int:
    """Bytes of the files of a folder; what is removed meanwhile counts as nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue
    return total


if __name__ == "__main__":
    sys.exit(main())
