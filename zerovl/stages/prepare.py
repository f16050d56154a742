"""The stage `prepare`: raw sources to shards, a manifest and, if the recipe wants one, a tokenizer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zerovl.data import tokenizer_training
from zerovl.data.broken_inputs import tell_broken
from zerovl.data.filtering.agreement import Scorer
from zerovl.data.filtering.dataset_filters import leave_out_of_all
from zerovl.data.filtering.drawn_sources import note_drawn
from zerovl.data.filtering.drawn_valid import draw_valid
from zerovl.data.filtering.left_out_tables import Tallies, save_tallies
from zerovl.data.filtering.semantic_duplicates import PictureEmbedder
from zerovl.data.manifest import Manifest
from zerovl.data.raw import sources
from zerovl.data.raw.layout import Source
from zerovl.data.raw.links import refuse_links
from zerovl.data.raw.misplaced import misplaced
from zerovl.data.raw.pack_sources import pack_sources, worker_count
from zerovl.descriptors import raise_open_files_limit
from zerovl.errors import ZeroVLError
from zerovl.files import disk_is_full, try_lock, write_json
from zerovl.params import FilterParams, Params
from zerovl.text_format import file_size, plural, table
from zerovl.workspace import Workspace

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder


def run(params: Params, workspace: Workspace = Workspace()) -> Manifest:  # noqa: B008 (it is frozen)
    """Read all sources, write `data/shards`, `data/manifest` and `data/tokenizer`; returns the manifest.

    Broken inputs are rows of the manifest with a reason. Raises `ZeroVLError` for settings and
    sources that cannot be used at all and for a full disk; then there is no `manifest.json`.
    Also where another `prepare` is at work in the same project, which then goes on undisturbed.
    """
    raise_open_files_limit()  # of the workers too: tars in place stay open while filters read their pictures
    workers = worker_count()
    filters = params.prepare.filters
    _check_models(filters)
    chosen = sources.resolve(params.data, workspace.root)
    refuse_links(chosen, workspace.root / params.data.raw)
    with _disk_full_explained(workspace.shards), _alone(workspace.shards.parent):
        for folder in (workspace.manifest, workspace.shards, workspace.tokenizer):
            _clear(folder)
        splits, left_out = pack_sources(chosen, params.prepare, workspace, workers)
        packed = _with_drawn_valid(Manifest(workspace.manifest, splits), params, workspace)
        with _encoder(filters.agreement.model) as judge, _encoder(filters.semantic_duplicates.model) as eye:
            manifest, left_out = leave_out_of_all(
                packed, left_out, filters, workspace.shards, _scorer(judge), _embedder(eye)
            )
        vocabulary = params.prepare.tokenizer_vocab
        tokens = tokenizer_training.learn(manifest, workspace.tokenizer, vocabulary)
        write_json(workspace.tokenizer_source, {"trained": tokens > 0, "vocab_size": tokens})
        save_tallies(workspace.manifest, left_out)
        manifest.save()
        shutil.rmtree(workspace.packed, ignore_errors=True)
    _summarise(manifest, chosen, workspace, left_out)
    if tokens:
        print(f"tokenizer: {tokens} tokens in {workspace.tokenizer}")
    elif vocabulary:
        print("no tokenizer was learned, since no training pair is left; `zerovl validate` refuses this")
    print(f"manifest: {workspace.manifest}")
    return manifest


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder that all outputs lie in; it ends with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(descriptor, folder):
            raise ZeroVLError(
                f"{folder}: another `zerovl prepare` is at work here and would have its files taken away; wait until "
                "it has ended, or stop it, then run this again"
            )
        yield
    finally:
        os.close(descriptor)


def _with_drawn_valid(manifest: Manifest, params: Params, workspace: Workspace) -> Manifest:
    """Draw a valid split for each source that has none, unless `splits` of the source leaves it out."""
    settings = params.prepare.draw_valid
    if not settings.fraction:
        return manifest
    refused = {source.name for source in params.data.sources if "valid" not in source.splits}
    names = sorted({name for name, _ in manifest.splits} - refused)
    sources = [name for name in names if (name, "valid") not in manifest.splits and manifest.pairs(name, "train")]
    for source in sources:
        manifest = draw_valid(manifest, source, settings, workspace.shards, params.prepare.shard_samples)
        print(f"{source}/valid: {plural(manifest.pairs(source, 'valid'), 'picture')} drawn from train")
    note_drawn(manifest, sources)
    return manifest


def _check_models(filters: FilterParams) -> None:
    """Raise `ZeroVLError` where a model that filters ask is not there, before hours of packing."""
    if asked := [model for model in (filters.agreement.model, filters.semantic_duplicates.model) if model]:
        from zerovl.registry.fetch import check_reference

        for model in asked:
            check_reference(model)


@contextmanager
def _encoder(model: str) -> Iterator[Encoder | None]:
    """Yield a model that a filter asks, if it has one; torch is imported then."""
    if not model:
        yield None
        return
    from zerovl.registry.fetch import opened

    with opened(model) as folder:
        from zerovl.model.encoder import Encoder

        yield Encoder.load(folder)


def _scorer(encoder: Encoder | None) -> Scorer | None:
    if encoder is None:
        return None
    from zerovl.model.agreement import EncoderScorer

    return EncoderScorer(encoder)


def _embedder(encoder: Encoder | None) -> PictureEmbedder | None:
    if encoder is None:
        return None
    from zerovl.model.picture_embeddings import EncoderEmbedder

    return EncoderEmbedder(encoder)


def _clear(folder: Path) -> None:
    """Make an empty folder, whatever an interrupted run left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _disk_full_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not disk_is_full(error):
            raise
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        raise ZeroVLError(
            f"{folder}: cannot write on ({error.strerror}), {free:,} bytes free; make room or put the project on "
            "a larger disk, then run it again"
        ) from None


def _summarise(manifest: Manifest, chosen: list[Source], workspace: Workspace, left_out: Tallies) -> None:
    rows = [
        (
            f"{name}/{split}",
            plural(info.pairs, "pair"),
            plural(info.captions, "caption"),
            f"{info.broken:,} broken",
            plural(len(info.shards), "shard"),
            f"{file_size(sum(shard.bytes for shard in info.shards))} of tars",
        )
        for (name, split), info in sorted(manifest.splits.items())
    ]
    print(table(rows, right=frozenset(range(1, 6))))
    tell_broken(manifest, workspace.validation_report)
    for line in misplaced(manifest, chosen):
        print(line)
    for source, by_split in sorted(left_out.items()):
        for split, reasons in sorted(by_split.items()):
            for reason, tally in sorted(reasons.items()):
                print(
                    f"{source}/{split}: left out by prepare.filters.{reason}: {plural(tally.samples, 'picture')}, "
                    f"{plural(tally.captions, 'caption')}"
                )
    for split, meaning in (
        ("valid", "never evaluated on (prepare.draw_valid draws one)"),
        ("train", "never trained on"),
    ):
        if lacking := [source.name for source in chosen if (source.name, split) not in manifest.splits]:
            print(f"no {split} split, so {meaning}: {', '.join(lacking)}")
