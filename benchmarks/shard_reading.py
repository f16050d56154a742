"""Samples a second from local shards, through the node's cache, by a request each and as a stream; and the requests.

Beside the cold cache stands the server alone: the same bytes over as many connections, that nobody keeps or looks at.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.common import Record, interleaved, rounded, summary
from benchmarks.range_server import requests, serving
from zerovl.data.batches.ahead import ShardsAhead
from zerovl.data.batches.sampling import Sampler, training_sampler
from zerovl.data.cached_shards import CachedRanges
from zerovl.data.manifest import INDEX_DTYPE, Manifest, ShardInfo, SplitInfo
from zerovl.data.raw.tar_captions import caption_reader, one_caption
from zerovl.data.s3_shards import PART, S3Ranges, S3Shards
from zerovl.data.shard_cache import ShardCache
from zerovl.data.shards import ShardReader
from zerovl.data.split_reader import SplitReader
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.reader import Chapter, TarPipeline
from zerovl.data.streams.tar_stream import SampleRules
from zerovl.files import sha256_file
from zerovl.params import TrainParams
from zerovl.s3_files import in_threads

ROOT = "s3://bucket/copy"
_CONNECTIONS = 8  # the default of machine.shard_cache


def reading(work: Path, shards: int, samples: int, picture: int, batch: int, rounds: int) -> dict[str, Record]:
    """Read an epoch in blocks of four shards: from the disk, through a cache, and by a request each; and as a stream.

    `shards` of `samples` pictures of `picture` bytes are made under `work`. Pictures are not decoded.
    """
    manifest = _write(work / "copy", work / "manifest", shards, samples, picture)
    sampler = _sampler(manifest, batch)
    with _server(work) as address:
        cache = ShardCache(work / "cache", 1 << 40, S3Shards(ROOT, _CONNECTIONS))
        own = manifest.splits["web", "train"].shards
        local, direct = ShardReader(work / "copy"), ShardReader(ROOT)
        cached = ShardReader(ROOT, CachedRanges(cache, own, S3Ranges(ROOT)))
        pairs = sampler.steps * batch
        found = {}
        ways: dict[str, Callable[[], None]] = {
            "a request each": lambda: _read(manifest, direct, sampler),
            "the server alone": lambda: _fetch(own),
            "cache, cold": lambda: _read(manifest, cached, sampler, ShardsAhead(sampler, manifest, cache)),
            "cache, warm": lambda: _read(manifest, cached, sampler),
        }
        for name, way in ways.items():
            requests(address)
            start, used = time.perf_counter(), time.process_time()
            way()
            seconds, used = time.perf_counter() - start, time.process_time() - used
            found[name] = {
                "samples_per_second": rounded(pairs / seconds),
                "requests": requests(address) / pairs,
                "processor": rounded(used / seconds),  # share of the time that this process computed
            }
        cold, alone = (found[name]["samples_per_second"] for name in ("cache, cold", "the server alone"))
        found["cache, cold"]["of_the_server"] = rounded(cold / alone)
        tars = [str(work / "copy" / shard.path) for shard in own]
        variants = {
            "local": lambda: _read(manifest, local, sampler),
            "cache, warm": lambda: _read(manifest, cached, sampler),
            "streamed": lambda: _stream(tars),
        }
        # Of this process: nothing is waited for, and the rest of the machine does not count.
        seconds_of = interleaved(variants, rounds, time.process_time)
        timed = summary(seconds_of["local"], seconds_of["cache, warm"])  # as a ratio of speeds: warm cache over local
        found["local"] = {"samples_per_second": rounded(pairs / timed["seconds"]), "requests": 0.0}
        found["cache, warm"] |= {key: value for key, value in timed.items() if "ratio" in key}
        streamed = shards * samples / summary(seconds_of["streamed"])["seconds"]
        found["streamed"] = {"samples_per_second": rounded(streamed), "requests": 0.0}
        found["cache, warm"]["samples_per_second"] = rounded(pairs / summary(seconds_of["cache, warm"])["seconds"])
    return found


def on_a_line(work: Path, rate: float, batch: int, rounds: int) -> Record:
    """Read what `reading` made under `work` through an empty cache, from a server of so many bytes a second.

    In turns with the server alone: what the line allows.
    """
    manifest = Manifest.load(work / "manifest")
    sampler, own = _sampler(manifest, batch), manifest.splits["web", "train"].shards
    with _server(work, rate):

        def cold() -> None:
            shutil.rmtree(work / "cache", ignore_errors=True)
            cache = ShardCache(work / "cache", 1 << 40, S3Shards(ROOT, _CONNECTIONS))
            shards = ShardReader(ROOT, CachedRanges(cache, own, S3Ranges(ROOT)))
            _read(manifest, shards, sampler, ShardsAhead(sampler, manifest, cache))

        seconds = interleaved({"alone": lambda: _fetch(own), "cold": cold}, rounds, time.perf_counter)
    timed = summary(seconds["alone"], seconds["cold"])  # as a ratio of speeds: the empty cache over the server alone
    return {"mb_a_second": rate / 1e6, **{key: value for key, value in timed.items() if "ratio" in key}}


def _sampler(manifest: Manifest, batch: int) -> Sampler:
    """An epoch in blocks of four shards."""
    train = TrainParams(batch_size=batch, micro_batch=1, epochs=1.0, shuffle="blocks", block_shards=4)
    return training_sampler(train, manifest)


def _read(manifest: Manifest, shards: ShardReader, sampler: Sampler, ahead: ShardsAhead | None = None) -> None:
    reader = SplitReader(manifest, shards, "train")
    for step in range(sampler.steps):
        if ahead:
            ahead(step)
        for row in sampler.batch(step).rows.tolist():
            reader.sample("web", row)
    if ahead:
        ahead.close()
    shards.close()


def _fetch(shards: Sequence[ShardInfo]) -> None:
    """Ask for all shards as the cache does, and keep nothing."""
    ranges = S3Ranges(ROOT, _CONNECTIONS)
    for shard in shards:
        starts = range(0, shard.bytes, PART)
        in_threads(lambda start, path=shard.path: ranges.read(path, start, PART), starts, _CONNECTIONS)  # type: ignore[misc]


def _stream(tars: list[str]) -> None:
    """Read the same tars from front to back, as train.reading streaming does."""
    rules = SampleRules("web", caption_reader("", one_caption), 10_000)
    for _ in TarPipeline(rules, 1000)(Chapter(tars, random.Random(0), Lost())):
        pass


@contextmanager
def _server(work: Path, rate: float = 0.0) -> Iterator[str]:
    with serving(work, rate) as address:
        keys = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
        with mock.patch.dict(os.environ, keys | {"AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}):
            yield address


def _write(root: Path, folder: Path, shards: int, samples: int, picture: int) -> Manifest:
    """Shards of pictures that are random bytes, with index and manifest."""
    shutil.rmtree(root, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    rng, records, found = np.random.default_rng(0), [], []
    for shard in range(shards):
        path = root / "web" / "train" / f"{shard:06d}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(shard * samples, (shard + 1) * samples):
                start = tar.offset
                record = {"image_id": number, "captions": ["a caption"], "caption_ids": [number], "source": "web"}
                for extension, content in (("jpg", rng.bytes(picture)), ("json", json.dumps(record).encode())):
                    member = tarfile.TarInfo(f"web-{number}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                records.append((shard, start, tar.offset - start))
        name = path.relative_to(root).as_posix()
        found.append(ShardInfo(name, samples, path.stat().st_size, sha256_file(path)))
    pairs = shards * samples
    manifest = Manifest(folder, {("web", "train"): SplitInfo(pairs, pairs, 0, tuple(found))})
    np.save(manifest.index_path("web", "train"), np.array(records, dtype=INDEX_DTYPE))
    manifest.save()
    return manifest
