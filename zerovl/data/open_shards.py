"""Where the shards of a manifest are read: in the project, in a copy of them, or on S3 through the node's cache."""

from __future__ import annotations

import os
from pathlib import Path

from zerovl import s3
from zerovl.data.cached_shards import CachedRanges
from zerovl.data.manifest import Manifest, ShardInfo
from zerovl.data.s3_shards import S3Ranges, S3Shards
from zerovl.data.shard_cache import ShardCache
from zerovl.data.shards import ShardReader
from zerovl.params import MachineParams
from zerovl.text_format import parse_size
from zerovl.workspace import Workspace


def shard_root(machine: MachineParams, workspace: Workspace) -> str:
    """Return where the shards are: `machine.shards`, else those of the project."""
    if machine.shards.startswith(s3.PREFIX):
        return machine.shards
    return os.path.expanduser(machine.shards) or str(workspace.shards)


def node_cache(machine: MachineParams, root: str) -> ShardCache:
    """Return the node's cache of whole shards that lie under `root`, on S3."""
    settings = machine.shard_cache
    limit = parse_size(settings.size, "machine.shard_cache.size")
    return ShardCache(Path(settings.folder).expanduser(), limit, S3Shards(root, settings.connections))


def split_shards(manifest: Manifest, split: str) -> list[ShardInfo]:
    """Return the shards of one split of all sources."""
    return [shard for source in manifest.sources(split) for shard in manifest.splits[source, split].shards]


def open_shards(manifest: Manifest, split: str, machine: MachineParams, workspace: Workspace) -> ShardReader:
    """Return what reads the samples of a split one after another, as an evaluation does.

    From S3 each shard comes whole into the node's cache when its first sample is asked for; where there is no room for
    it, samples come by a request each.
    """
    root = shard_root(machine, workspace)
    if not root.startswith(s3.PREFIX):
        return ShardReader(root)
    return ShardReader(root, CachedRanges(node_cache(machine, root), split_shards(manifest, split), S3Ranges(root)))
