"""Where the samples of a manifest are read: shards of the project, a copy of them, tars in place; S3 through a cache.

What lies on S3 has its whole address here: shards under `machine.shards`, and the tars of sources that stay in place.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from zerovl import s3
from zerovl.data.byte_ranges import ByteRanges
from zerovl.data.cached_shards import CachedRanges
from zerovl.data.manifest import Manifest, ShardInfo
from zerovl.data.placed_tars import CATALOGUE, PlacedTars, TarPlace, read_catalogue
from zerovl.data.s3_shards import S3Files
from zerovl.data.shard_cache import ShardCache
from zerovl.data.shards import FileRanges, ShardReader
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.params import MachineParams
from zerovl.text_format import parse_size
from zerovl.workspace import Workspace


def shard_root(machine: MachineParams, workspace: Workspace) -> str:
    """Return where the shards are: `machine.shards`, else those of the project.

    Raises `ZeroVLError` where `machine.shards` is a folder that is not there.
    """
    if not machine.shards:
        return str(workspace.shards)
    if machine.shards.startswith(s3.PREFIX):
        return machine.shards.rstrip("/")
    root = os.path.expanduser(machine.shards)
    if not os.path.isdir(root):
        raise ZeroVLError(
            f"machine.shards: {root}: no such folder; name one that has a copy of data/shards, or {s3.PREFIX}"
            "bucket/prefix, or leave it empty for data/shards itself"
        )
    return root


def node_cache(machine: MachineParams) -> ShardCache:
    """Return the node's cache of whole files that lie on S3."""
    settings = machine.shard_cache
    limit = parse_size(settings.size, "machine.shard_cache.size")
    return ShardCache(Path(settings.folder).expanduser(), limit, S3Files(settings.connections))


def split_shards(manifest: Manifest, split: str) -> list[ShardInfo]:
    """Return the shards of one split of all sources."""
    return [shard for source in manifest.sources(split) for shard in manifest.splits[source, split].shards]


@dataclass(frozen=True)
class Under:
    """The `ByteRanges` of the shards under a root on S3, by those of whole addresses."""

    root: str
    files: ByteRanges

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Return at most `size` bytes, fewer at the file's end."""
        return self.files.read(f"{self.root}/{path}", offset, size)

    def renew(self, path: str) -> bool:
        """Return whether a damaged copy of the shard was removed."""
        return self.files.renew(f"{self.root}/{path}")

    def close(self) -> None:
        """Close what is open."""
        self.files.close()


@dataclass(frozen=True)
class ShardFiles:
    """The files that a split's shards under `root` are made of; `tars` says where those in place lie."""

    root: str
    tars: Mapping[str, TarPlace]

    @classmethod
    def of_split(cls, manifest: Manifest, split: str, root: str, project: Path) -> ShardFiles:
        """Return the files of a split; raises `ZeroVLError` where a tar on this machine is missing or altered."""
        shards = split_shards(manifest, split)
        if not any(shard.tar for shard in shards):
            return cls(root, {})
        files = cls(root, read_catalogue(_ranges(root, S3Files()), root))
        for shard in shards:
            files._check(shard, project)
        return files

    def pictures(self, shard: ShardInfo) -> ShardInfo | None:
        """Return the file on S3 that has the pictures of a shard, as its address; None where they are at hand."""
        if shard.tar is not None:
            place = self.tars[shard.tar]
            return ShardInfo(place.path, shard.samples, place.bytes, shard.tar) if _remote(place.path) else None
        return self._itself(shard)

    def on_s3(self, shards: Iterable[ShardInfo]) -> Iterator[ShardInfo]:
        """Give all files on S3 that samples of the shards need."""
        for shard in shards:
            for file in (self._itself(shard), self.pictures(shard) if shard.tar is not None else None):
                if file is not None:
                    yield file

    def reader(self, shards: list[ShardInfo], cache: ShardCache | None, project: Path) -> ShardReader:
        """Return what reads samples; with a cache the files of `shards` come whole, all else by a request each."""
        direct = S3Files()
        remote: ByteRanges = CachedRanges(cache, self.on_s3(shards), direct) if cache else direct
        ranges = _ranges(self.root, remote)
        return ShardReader(self.root, ranges, PlacedTars(self.root, ranges, FileRanges(str(project)), remote))

    def _itself(self, shard: ShardInfo) -> ShardInfo | None:
        return replace(shard, path=f"{self.root}/{shard.path}") if _remote(self.root) else None

    def _check(self, shard: ShardInfo, project: Path) -> None:
        if shard.tar is None:
            return
        place = self.tars.get(shard.tar)
        if place is None:
            raise ZeroVLError(
                f"{self.root}/{CATALOGUE}: lacks the tar of {shard.path}; the manifest and the shards do not belong "
                "together, run `dvc repro -f prepare`"
            )
        if _remote(place.path):
            return
        path = project / place.path
        found = path.stat().st_size if path.is_file() else None
        if found != place.bytes:
            now = "is not there, and was" if found is None else f"has {found:,} bytes, and had {place.bytes:,}"
            raise ZeroVLError(
                f"{path}: {now} when prepare indexed it; bring back the tar as it was (`dvc checkout`, `dvc pull`), or "
                "run `dvc repro -f prepare`"
            )


def open_shards(
    manifest: Manifest, split: str, machine: MachineParams, workspace: Workspace, project: Path
) -> ShardReader:
    """Return what reads the samples of a split one after another, as an evaluation does.

    `project` has the tars in place that are named relative to it; it is the workspace's own folder, but where that has
    only what DVC keeps of a revision.

    From S3 each file comes whole into the node's cache when its first sample is asked for; where there is no room for
    it, samples come by a request each.
    """
    root, shards = shard_root(machine, workspace), split_shards(manifest, split)
    files, cache = ShardFiles.of_split(manifest, split, root, project), node_cache(machine)
    if any(files.on_s3(shards)) and (different := cache.missing_locks()):
        _warn_once(different)
    return files.reader(shards, cache, project)


@functools.cache
def _warn_once(text: str) -> None:
    """Once a process: each evaluator opens shards of its own."""
    logger().warning(text)


def _remote(path: str) -> bool:
    return path.startswith(s3.PREFIX)


def _ranges(root: str, remote: ByteRanges) -> ByteRanges:
    return Under(root, remote) if _remote(root) else FileRanges(root)
