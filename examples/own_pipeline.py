"""A webdataset pipeline of one's own feeds the training: any stages, as long as samples come out.

    zerovl prepare                                        # once: learns the tokenizer that this uses
    python examples/own_pipeline.py 'tars/{0000..0009}.tar'  # in the project's folder

A pipeline gives the samples of a chapter, some tars that one loader process reads together. The same chapter must give
the same samples in the same order: then a run goes on exactly where it stopped, and all it has to remember is how many
samples of a chapter it took. So draw from `chapter.rng`, and count what you leave out in `chapter.lost`.
docs/extending.md says how `zerovl train` comes to run on it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import webdataset

from zerovl import params_file
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.shards import Sample
from zerovl.data.streams.addresses import expand
from zerovl.data.streams.batches import streamed_batches
from zerovl.data.streams.places import Begin, Layout, Places, tars_digest
from zerovl.data.streams.reader import Chapter, StreamedSource
from zerovl.data.streams.schedule import StreamSchedule
from zerovl.model.text import CaptionTokenizer
from zerovl.workspace import Workspace

SOURCE, BATCH, STEPS = "own", 8, 3


def long_captions(chapter: Chapter) -> Iterable[Sample]:
    """Give the pairs whose caption has four words or more, in a drawn order."""

    def samples(raws: Iterable[dict[str, Any]]) -> Iterator[Sample]:
        for raw in raws:
            caption = raw["txt"].decode()
            if len(caption.split()) >= 4:
                yield Sample(raw["__key__"], raw["jpg"], [caption], [0], image_id=0, source=SOURCE)
            else:
                chapter.lost.add("caption of fewer than four words", f"{raw['__url__']}:{raw['__key__']}")

    pipeline: Iterable[Sample] = webdataset.DataPipeline(
        webdataset.SimpleShardList(chapter.tars),
        webdataset.tarfile_to_samples(),
        samples,
        webdataset.shuffle(100, rng=chapter.rng),
    )
    return pipeline


def main() -> None:
    """Print what is in the first batches, and what was left out for them."""
    params, workspace = params_file.load("params.yaml"), Workspace()
    tars = expand(sys.argv[1:], Path(), "tars")
    source = StreamedSource(SOURCE, tars, pairs=100, pipeline=long_captions)
    layout = Layout({SOURCE: tars_digest(tars)}, ranks=1, workers=1, chapter_tars=2, shuffle_buffer=100)
    places = Places(Begin(layout), rank=0)
    batches = streamed_batches(
        sources=[source],
        schedule=StreamSchedule({SOURCE: source.pairs}, BATCH, STEPS, params.train.seed, debiased=True),
        places=places,
        tokenize=CaptionTokenizer(workspace.tokenizer, params.model.max_tokens),
        transform=TrainTransform(params.model.image_size, params.train.augment),
        augment=params.train.augment,
        max_pixels=params.prepare.max_pixels,
        micro_batch=BATCH,
        rank=0,
        world_size=1,
    )
    with batches:
        for batch in batches:
            (micro,) = batch.micro_batches
            print(f"step {batch.step}: images {tuple(micro.images.shape)}, first pair {micro.keys[0]}")
    for reason, count in places.lost[SOURCE].counts.items():
        print(f"left out: {count} x {reason}")


if __name__ == "__main__":
    main()
