"""Where a run reads its training pairs: files of the node, or on S3, whole through a cache or a request a pair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zerovl import s3
from zerovl.data.batches.ahead import Ahead, NothingAhead, ShardsAhead
from zerovl.data.batches.sampling import Sampler
from zerovl.data.manifest import Manifest, ShardInfo
from zerovl.data.open_shards import ShardFiles, node_cache, shard_root, split_shards
from zerovl.data.shard_cache import ShardCache
from zerovl.data.shards import ShardReader
from zerovl.errors import ZeroVLError
from zerovl.params import Params, TrainParams
from zerovl.text_format import plural, size
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class ShardPlace:
    """The files of the training shards, and `cache` where whole ones are kept on the node."""

    files: ShardFiles
    workspace: Workspace
    manifest: Manifest
    sampler: Sampler | None  # None: no training pair is read from there
    cache: ShardCache | None
    said: list[str]  # for the block at the start: where the shards are, and what would be better

    def reader(self) -> ShardReader:
        """Return what reads samples of training shards."""
        return self.files.reader(split_shards(self.manifest, "train"), self.cache, self.workspace.root)

    def direct_reader(self) -> ShardReader:
        """Return what reads a few samples of any split: from S3 by a request each."""
        return self.files.reader([], None, self.workspace.root)

    def ahead(self) -> Ahead:
        """Return what gets shards ready before the loader comes to them."""
        if self.sampler is None or self.cache is None:
            return NothingAhead()
        if not any(self.files.pictures(shard) for shard in split_shards(self.manifest, "train")):
            return NothingAhead()  # the pictures are on a disk; the small shards that name them come when asked for
        return ShardsAhead(self.sampler, self.manifest, self.cache, self.files)


def shard_place(params: Params, workspace: Workspace, manifest: Manifest, sampler: Sampler) -> ShardPlace:
    """Decide how training shards are read; raises `ZeroVLError` where the cache holds less than blocks of them need.

    Also where a tar in place is missing, or is not as large as it was.
    """
    root, train = shard_root(params.machine, workspace), params.train
    files = ShardFiles.of_split(manifest, "train", root, workspace.root)
    away = list(files.on_s3(split_shards(manifest, "train")))
    if not away:
        said = [f"in {root}/"] if params.machine.shards else []
        if train.shuffle == "blocks" and train.sampling != "sequential":
            said.append(
                "train.shuffle blocks mixes less than global, and brings nothing where a disk of the node has all pairs"
            )
        return ShardPlace(files, workspace, manifest, sampler, None, said)
    settings, cache = params.machine.shard_cache, node_cache(params.machine)
    where = root if root.startswith(s3.PREFIX) else "tars in place on s3://"
    total = sum(file.bytes for file in away)
    if total > cache.limit and train.shuffle == "global" and train.sampling != "sequential":
        said = [
            f"{where}, a request a pair: train.shuffle global needs all {size(total)} at any time and "
            f"machine.shard_cache.size is {settings.size}; train.shuffle blocks reads whole shards ahead, or raise "
            "the size"
        ]
        return ShardPlace(files, workspace, manifest, sampler, None, said)
    if total > cache.limit and (needed := _needed(train, manifest, files)) > cache.limit:
        raise ZeroVLError(
            f"machine.shard_cache.size {settings.size}: holds less than the {size(needed)} that blocks of "
            f"{plural(train.block_shards, 'shard')} need at once (train.block_shards, one block of each source with "
            "train.sampling debiased, and the next one); raise the size, or take smaller blocks"
        )
    said = [text for text in (_through(cache, where, away, train), cache.missing_locks()) if text]
    return ShardPlace(files, workspace, manifest, sampler, cache, said)


def _through(cache: ShardCache, where: str, away: list[ShardInfo], train: TrainParams) -> str:
    total = sum(file.bytes for file in away)
    text = (
        f"{where}, whole shards through {cache.folder}/ (at most {size(cache.limit)}), "
        f"{size(cache.present(away))} of {size(total)} are there"
    )
    if total <= cache.limit and train.shuffle == "blocks":
        text += "; all of them fit, so train.shuffle global would mix better once they are there"
    return text


def _needed(train: TrainParams, manifest: Manifest, files: ShardFiles) -> int:
    """Bytes of the blocks that are open at once, at most, and of the one that comes next."""
    group = 1 if train.sampling == "sequential" else train.block_shards
    if train.sampling != "debiased":
        return _largest(files, split_shards(manifest, "train"), 2 * group)
    sources = [manifest.splits[name, "train"].shards for name in manifest.sources("train")]
    blocks = [_largest(files, shards, group) for shards in sources]
    return sum(blocks) + max(blocks)


def _largest(files: ShardFiles, shards: Iterable[ShardInfo], count: int) -> int:
    """Bytes that are fetched for the `count` shards that need most: a shard itself, and its tar where that is away."""
    return sum(sorted((sum(file.bytes for file in files.on_s3([shard])) for shard in shards), reverse=True)[:count])
