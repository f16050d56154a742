"""What a rank needs before its first batch, by the number of pairs: seconds and memory, then time a pair."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.common import MIB, Record, resident, rounded
from zerovl.data.batches.ahead import Window
from zerovl.data.batches.sampling import training_sampler
from zerovl.data.manifest import INDEX_DTYPE, VERSION, Manifest, ShardInfo, SplitInfo
from zerovl.params import TrainParams

SHARD_PAIRS, SHARD_BYTES = 1000, 60 << 20
BATCHES = 20


def scale(pairs: int, shuffle: str, batch: int) -> Record:
    """Load a manifest of so many pairs, make the sampler of eight epochs, look at the first batches and read the index.

    The manifest is written out in full, the index is a file without blocks: its pages cost memory as others do.
    """
    warm_up(batch)
    with tempfile.TemporaryDirectory() as folder:
        size = _write(Path(folder), pairs)
        before, start = resident(), time.process_time()
        manifest = Manifest.load(Path(folder))
        train = TrainParams(batch_size=batch, micro_batch=1, epochs=8.0, shuffle=shuffle, sampling="shuffled")  # type: ignore[arg-type]
        sampler = training_sampler(train, manifest)
        window = Window(sampler, manifest, 64 << 30)
        window.move(0)
        seconds, memory = time.process_time() - start, resident() - before
        index = manifest.index("web", "train")
        start = time.process_time()
        for step in range(BATCHES):
            rows = sampler.batch(step).rows
            window.move(step)
            assert int(index[rows[:64]]["size"].sum()) == 0
        pair = (time.process_time() - start) / BATCHES / batch
    return {
        "pairs": pairs,
        "shuffle": shuffle,
        "manifest_mib": rounded(size / MIB),
        "seconds": rounded(seconds),
        "memory_mib": rounded(memory / MIB),
        "memory_after_mib": rounded((resident() - before) / MIB),
        "microseconds_a_pair": rounded(pair * 1e6),
    }


def warm_up(batch: int) -> None:
    """Use all of it once, small: the libraries' own memory is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), 4 * batch)
        training_sampler(TrainParams(batch_size=batch, micro_batch=1), Manifest.load(Path(folder))).batch(0)


def _write(folder: Path, pairs: int) -> int:
    """A manifest and an index without content; returns the bytes of `manifest.json`."""
    shards = [
        ShardInfo(f"web/train/{i:06d}.tar", min(SHARD_PAIRS, pairs - i * SHARD_PAIRS), SHARD_BYTES, f"{i:064x}")
        for i in range(-(-pairs // SHARD_PAIRS))
    ]
    split = asdict(SplitInfo(pairs, pairs, 0, tuple(shards)))
    path = folder / "manifest.json"
    path.write_text(json.dumps({"version": VERSION, "sources": {"web": {"train": split}}}), encoding="utf-8")
    index = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        Manifest(folder, {}).index_path("web", "train"), mode="w+", dtype=INDEX_DTYPE, shape=(pairs,)
    )
    del index
    return path.stat().st_size
