"""What `prepare` makes of an odd source in bounded memory, and the look for what it may have left half-written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import webdataset  # noqa: F401 - here, so that its import does not count for the memory of a test

from benchmarks.common import forget_peak, peak_resident
from tests.support import raw_sources
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError

_MEMORY = 256 << 20  # bytes beyond what the process has at the beginning


@contextmanager
def bounded_memory() -> Iterator[None]:
    """The process takes little more memory within the block than it has at its beginning.

    Whatever it had at its most before does not count: else a test after a hungry one could not fail.
    """
    forget_peak()
    before = peak_resident()  # what is resident now, but where the kernel forgets no peak
    yield
    assert peak_resident() - before < _MEMORY


def prepared(root: Path) -> Manifest | str:
    """What `prepare` makes of the source, or the one line that it refuses it with; either way nothing is half there."""
    try:
        manifest = raw_sources.run_prepare(root)
        refusal = ""
    except ZeroVLError as error:
        refusal = str(error)
    written = [path.name for path in (root / "data").rglob("*")]
    assert not [name for name in written if name.endswith(".part") or name.startswith(".")]
    if refusal:
        assert "manifest.json" not in written
        assert len(refusal.splitlines()) == 1
        assert len(refusal) < 2000
        return refusal
    for info in manifest.splits.values():
        for shard in info.shards:
            assert (root / "data/shards" / shard.path).stat().st_size == shard.bytes
    return manifest
