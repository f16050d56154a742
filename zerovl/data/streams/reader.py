"""One source as one reader sees it: chapter after chapter, each a pipeline of webdataset's, to go on from any place."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from zerovl.data.batches.randomness import keys64
from zerovl.data.shards import Sample
from zerovl.data.streams.addresses import Stream, open_stream
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.order import Place, Share, TarOrder
from zerovl.data.streams.tar_stream import SampleRules, read_tar
from zerovl.errors import ZeroVLError

OpenTar = Callable[[str], Stream]


@dataclass(frozen=True)
class Chapter:
    """Tars of a chapter that a reader shuffles together, all of one pass, and what a pipeline may draw from."""

    tars: list[str]
    rng: random.Random  # the same for the same chapter, so that a run can go on in the middle of it
    lost: Lost  # where a pipeline counts what it leaves out


# Gives the samples of a chapter. The same chapter must give the same samples in the same order.
Pipeline = Callable[[Chapter], Iterable[Sample]]


@dataclass(frozen=True)
class TarPipeline:
    """The pipeline of `train.streaming`: webdataset's stages over tars, and its shuffle buffer."""

    rules: SampleRules
    shuffle_buffer: int  # samples
    open_tar: OpenTar = open_stream

    def __call__(self, chapter: Chapter) -> Iterable[Sample]:
        """Return the samples of a chapter, shuffled."""
        import webdataset

        def samples(tars: Iterable[dict[str, str]]) -> Iterator[Sample]:
            for tar in tars:
                yield from read_tar(tar["url"], self.open_tar(tar["url"]), self.rules, chapter.lost)

        pipeline: Iterable[Sample] = webdataset.DataPipeline(
            webdataset.SimpleShardList(chapter.tars),
            samples,
            # Samples go out once half the buffer is there: a loader then waits half as long for its first batch.
            webdataset.shuffle(self.shuffle_buffer, initial=self.shuffle_buffer // 2, rng=chapter.rng),
        )
        return pipeline


@dataclass(frozen=True)
class StreamedSource:
    """A source of pairs that are read as they come."""

    name: str
    tars: list[str]
    pairs: int  # of a pass
    pipeline: Pipeline


@dataclass
class SourceReader:
    """Gives a reader's samples of a source, from `place` on and without end; `place` moves along."""

    source: StreamedSource
    share: Share
    seed: int
    place: Place
    lost: Lost = field(default_factory=Lost)

    def __iter__(self) -> Iterator[Sample]:
        """Yield samples; raises `ZeroVLError` where a whole chapter has none that can be used."""
        order = TarOrder(self.source.tars, self.seed, self.source.name)
        while True:
            chapter, seen = self.place.chapter, self.place.given
            given = 0
            for sample in self._samples(order, chapter):
                given += 1
                if given < seen:
                    continue
                if given == seen:
                    self.lost.take()  # counted when these samples were given first
                    continue
                self.place = Place(chapter, given)
                yield sample
            if not given:
                raise ZeroVLError(self._nothing(order, chapter))
            if given < seen:
                raise ZeroVLError(
                    f"train.streaming: {self.source.name}: {given} samples lie where {seen} had been read before: its "
                    "tars have changed since the run began; bring them back, or begin another run (train.seed)"
                )
            self.place = Place(chapter + 1, 0)

    def _samples(self, order: TarOrder, chapter: int) -> Iterator[Sample]:
        """Samples of a chapter, pass by pass: a buffer over two passes would hold pairs twice, and so would a batch."""
        tars = len(order.tars)
        for _, together in groupby(self.share.positions(chapter), key=lambda position: position // tars):
            positions = list(together)
            (key,) = keys64(1, self.seed, "samples of a chapter", self.source.name, positions[0])
            yield from self.source.pipeline(Chapter(list(map(order.at, positions)), random.Random(key), self.lost))

    def _nothing(self, order: TarOrder, chapter: int) -> str:
        first = order.at(self.share.positions(chapter)[0])
        reasons = self.lost.most_frequent() or "they are empty"
        return (
            f"train.streaming: {self.source.name}: {self.share.chapter_tars} tars ({first} and others) have not one "
            f"usable pair ({reasons}); correct its urls, json_caption or txt_captions"
        )
