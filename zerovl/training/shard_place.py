"""Where a run reads its training pairs: shards of the node, or on S3, whole through a cache or a request a pair."""

from __future__ import annotations

from dataclasses import dataclass

from zerovl import s3
from zerovl.data.batches.ahead import Ahead, NothingAhead, ShardsAhead
from zerovl.data.batches.sampling import Sampler
from zerovl.data.cached_shards import CachedRanges
from zerovl.data.manifest import Manifest, ShardInfo
from zerovl.data.open_shards import node_cache, shard_root, split_shards
from zerovl.data.s3_shards import S3Ranges
from zerovl.data.shard_cache import ShardCache
from zerovl.data.shards import ShardReader
from zerovl.errors import ZeroVLError
from zerovl.params import Params, TrainParams
from zerovl.text_format import plural, size
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class ShardPlace:
    """The shards' root with what is between it and the loader, `cache` where whole shards are kept on the node."""

    root: str
    manifest: Manifest
    sampler: Sampler
    cache: ShardCache | None
    said: list[str]  # for the block at the start: where the shards are, and what would be better

    def reader(self) -> ShardReader:
        """Return what reads samples of training shards."""
        if self.cache is None:
            return ShardReader(self.root)
        return ShardReader(
            self.root, CachedRanges(self.cache, split_shards(self.manifest, "train"), S3Ranges(self.root))
        )

    def ahead(self) -> Ahead:
        """Return what gets shards ready before the loader comes to them."""
        return ShardsAhead(self.sampler, self.manifest, self.cache) if self.cache else NothingAhead()


def shard_place(params: Params, workspace: Workspace, manifest: Manifest, sampler: Sampler) -> ShardPlace:
    """Decide how training shards are read; raises `ZeroVLError` where the cache holds less than blocks of them need."""
    root, train = shard_root(params.machine, workspace), params.train
    if not root.startswith(s3.PREFIX):
        said = [f"in {root}/"] if params.machine.shards else []
        if train.shuffle == "blocks" and train.sampling != "sequential":
            said.append(
                "train.shuffle blocks mixes less than global, and brings nothing where a disk of the node has all pairs"
            )
        return ShardPlace(root, manifest, sampler, None, said)
    settings, shards = params.machine.shard_cache, split_shards(manifest, "train")
    cache = node_cache(params.machine, root)
    limit = cache.limit
    total = sum(shard.bytes for shard in shards)
    if total > limit and train.shuffle == "global" and train.sampling != "sequential":
        said = [
            f"{root}, a request a pair: train.shuffle global needs all {size(total)} at any time and "
            f"machine.shard_cache.size is {settings.size}; train.shuffle blocks reads whole shards ahead, or raise "
            "the size"
        ]
        return ShardPlace(root, manifest, sampler, None, said)
    if total > limit and (needed := _needed(train, manifest)) > limit:
        raise ZeroVLError(
            f"machine.shard_cache.size {settings.size}: holds less than the {size(needed)} that blocks of "
            f"{plural(train.block_shards, 'shard')} need at once (train.block_shards, one block of each source with "
            "train.sampling debiased, and the next one); raise the size, or take smaller blocks"
        )
    return ShardPlace(root, manifest, sampler, cache, [_through(cache, root, shards, train)])


def _through(cache: ShardCache, root: str, shards: list[ShardInfo], train: TrainParams) -> str:
    total = sum(shard.bytes for shard in shards)
    text = (
        f"{root}, whole shards through {cache.folder}/ (at most {size(cache.limit)}), "
        f"{size(cache.present(shards))} of {size(total)} are there"
    )
    if total <= cache.limit and train.shuffle == "blocks":
        text += "; all of them fit, so train.shuffle global would mix better once they are there"
    return text


def _needed(train: TrainParams, manifest: Manifest) -> int:
    """Bytes of the blocks that are open at once, at most, and of the one that comes next."""
    group = 1 if train.sampling == "sequential" else train.block_shards
    if train.sampling != "debiased":
        return _largest(split_shards(manifest, "train"), 2 * group)
    blocks = [_largest(manifest.splits[name, "train"].shards, group) for name in manifest.sources("train")]
    return sum(blocks) + max(blocks)


def _largest(shards: list[ShardInfo] | tuple[ShardInfo, ...], count: int) -> int:
    return sum(sorted((shard.bytes for shard in shards), reverse=True)[:count])
