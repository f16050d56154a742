"""Shards fetched before they are needed: which they are is known, as the pairs of a step are a function of the step.

Each process that makes batches looks ahead in a thread of its own, and takes the next shard that is neither in the
node's cache nor on its way by another; so ranks and workers share the work without a word between them.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from zerovl.data.batches.sampling import Sampler
from zerovl.data.batches.shuffle import shard_pairs
from zerovl.data.manifest import Manifest, ShardInfo
from zerovl.data.open_shards import ShardFiles
from zerovl.data.shard_cache import NoRoomError, ShardCache
from zerovl.errors import ZeroVLError
from zerovl.log import logger

_MOST_STEPS = 10_000  # that are looked at ahead
_AGAIN = 1.0  # seconds until what failed, or what another process fetches, is looked at again
_SHARE = 0.75  # of the cache that may be filled ahead: the rest is for those that are a little behind


class Ahead(Protocol):
    """Gets ready what coming steps need; picklable."""

    def __call__(self, step: int) -> None:
        """Take note that a batch of this step is made now; returns at once."""
        ...

    def close(self) -> None:
        """End what runs in this process."""
        ...


class NothingAhead:
    """For shards that are at hand."""

    def __call__(self, step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Window:
    """The shards of the steps from now on, in the order in which they are needed first, up to a number of bytes."""

    def __init__(
        self, sampler: Sampler, manifest: Manifest, most_bytes: float, files: ShardFiles | None = None
    ) -> None:
        """Take the files that shards are fetched as from `files`, else the shards themselves."""
        self._sampler = sampler
        self._most_bytes = most_bytes
        self._ends = [np.cumsum(shard_pairs(manifest, source)) for source in sampler.sources]  # (S,) a source
        splits = [manifest.splits[source, "train"] for source in sampler.sources]
        self._firsts = np.cumsum([0, *(len(split.shards) for split in splits)])  # of each source in the row of all
        shards = [shard for split in splits for shard in split.shards]
        self._shards = [files.pictures(shard) for shard in shards] if files else shards  # None: at hand
        self._sizes = [shard.bytes if shard else 0 for shard in self._shards]
        self._steps: deque[tuple[int, list[int]]] = deque()  # that were looked at, each with its shards
        self._uses: Counter[int] = Counter()  # of each shard in these steps
        self._bytes = 0

    def move(self, step: int) -> None:
        """Begin with `step`: forget what only earlier ones need, and look at as many more as have room."""
        if self._steps and step < self._steps[0][0]:  # behind what was forgotten
            self._steps.clear()
            self._uses.clear()
            self._bytes = 0
        while self._steps and self._steps[0][0] < step:
            for shard in self._steps.popleft()[1]:
                self._uses[shard] -= 1
                if not self._uses[shard]:
                    del self._uses[shard]
                    self._bytes -= self._sizes[shard]
        coming = self._steps[-1][0] + 1 if self._steps else step
        end = min(self._sampler.steps, step + _MOST_STEPS)
        while coming < end and self._bytes < self._most_bytes and len(self._uses) < len(self._shards):
            shards = self._of_step(coming)
            self._steps.append((coming, shards))
            self._bytes += sum(self._sizes[shard] for shard in shards if not self._uses[shard])
            self._uses.update(shards)
            coming += 1

    def shards(self) -> Iterator[ShardInfo]:
        """Yield each shard of the window once, those that are needed first first, while they fit."""
        seen: set[int] = set()
        room = self._most_bytes
        for _, shards in self._steps:
            for shard in shards:
                file = self._shards[shard]
                if file is not None and shard not in seen:
                    seen.add(shard)
                    room -= file.bytes
                    if room < 0:
                        return
                    yield file

    def _of_step(self, step: int) -> list[int]:
        """Numbers of a step's shards in the row of all."""
        batch = self._sampler.batch(step)
        found = []
        for source in np.unique(batch.source_ids).tolist():
            rows = batch.rows[batch.source_ids == source]
            shards = np.searchsorted(self._ends[source], rows, side="right")
            found += (int(self._firsts[source]) + np.unique(shards)).tolist()
        return found


class ShardsAhead:
    """Fetches the shards of coming steps into the node's cache, in a thread of each process that makes batches."""

    def __init__(
        self, sampler: Sampler, manifest: Manifest, cache: ShardCache, files: ShardFiles | None = None
    ) -> None:
        self._sampler = sampler
        self._manifest = manifest
        self._cache = cache
        self._files = files
        self._fetcher: _Fetcher | None = None
        self._owner = 0  # the process of the fetcher: a thread does not come along when a process forks

    def __call__(self, step: int) -> None:
        """Take note of the step; the first call of a process starts its thread."""
        if self._fetcher is None or self._owner != os.getpid():
            window = Window(self._sampler, self._manifest, _SHARE * self._cache.limit, self._files)
            self._fetcher, self._owner = _Fetcher(window, self._cache, step), os.getpid()
            self._fetcher.start()
        self._fetcher.note(step)

    def close(self) -> None:
        """End the thread of this process, where there is one."""
        if self._fetcher is not None and self._owner == os.getpid():
            self._fetcher.end()
        self._fetcher = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fetcher": None, "_owner": 0}


class _Fetcher(threading.Thread):
    """A daemon: a process that is told to end does not wait for a server."""

    def __init__(self, window: Window, cache: ShardCache, step: int) -> None:
        super().__init__(name="shards ahead", daemon=True)
        self._window = window
        self._cache = cache
        self._step = step
        self._noted = threading.Event()
        self._ended = False

    def note(self, step: int) -> None:
        if step != self._step:
            self._step = step
            self._noted.set()

    def end(self) -> None:
        self._ended = True
        self._noted.set()
        self.join(_AGAIN)

    def run(self) -> None:
        while True:
            self._noted.clear()
            if self._ended:  # looked at after the event is cleared, which may have been set for just this
                return
            self._window.move(self._step)
            complete = self._pass()
            self._noted.wait(None if complete else _AGAIN)

    def _pass(self) -> bool:
        """Fetch what is missing, the next one first; returns whether all of it is there, or there is no room."""
        coming = list(self._window.shards())
        wanted = {shard.sha256 for shard in coming}
        missing = [shard for shard in coming if not self._cache.use(shard)]
        complete = True
        for shard in missing:
            if self._ended:
                return False
            try:
                complete &= self._cache.fetch(shard, wanted, wait=False)
            except NoRoomError:
                return True
            except (OSError, ZeroVLError) as error:
                # Whoever needs the shard meets the same error, and says it with its place.
                logger().debug(f"{shard.path}: not fetched ahead: {error}")
                return False
            if self._noted.is_set():  # the step has moved on: what comes next may be another shard
                return False
        return complete
