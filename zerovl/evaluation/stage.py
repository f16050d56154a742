"""`zerovl evaluate`: retrieval on every validation split, against an untrained model and chance."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zerovl.data.loader import EvaluationBatch, evaluation_batches, read_image
from zerovl.data.manifest import Manifest
from zerovl.data.shards import Sample, ShardReader
from zerovl.errors import ZeroVLError
from zerovl.evaluation import gallery, report, sample
from zerovl.evaluation.pool import Pool, encode
from zerovl.evaluation.scores import OVERALL, Scores, by_source, score, write_queries
from zerovl.files import atomic_write, sha256_file, sha256_json, write_json
from zerovl.model.encoder import Encoder
from zerovl.params import EvaluateParams, Params
from zerovl.workspace import Workspace

METRIC = "retrieval-1"  # change it when the same model and data would score otherwise
PICTURE_BUDGET = 2_900_000  # characters of pictures in report.html
MAX_WORKERS = 8


def run(params: Params, workspace: Workspace = Workspace()) -> None:  # noqa: B008  (frozen)
    """Write `reports/evaluation/`: `metrics.json`, `queries.parquet`, `sample/`, `report.html`, `gallery.png`."""
    settings = params.evaluate
    manifest = Manifest.load(workspace.manifest)
    sources = manifest.sources("valid")
    if not sources:
        raise ZeroVLError(
            f"{workspace.manifest}: no source has a valid split, so there is nothing to evaluate on; add one "
            f"to a source in {params.data.raw} (data/README.md shows how), then run `dvc repro`"
        )
    shards = ShardReader(workspace.shards)
    trained = Encoder.load(workspace.model)
    untrained = Encoder.untrained(workspace.model, settings.seed)
    batches = validation_batches(manifest, shards, trained, settings.batch_size)
    pool, (ours, baseline) = encode(batches, [trained, untrained], settings.batch_size)
    scores = score(pool, ours, baseline, settings.chunk, settings.bootstrap, settings.seed)
    metrics = {
        "overall": scores[OVERALL].to_json(),
        "sources": {source: its.to_json() for source, its in by_source(pool, scores).items()},
        "evaluation_digest": evaluation_digest(manifest),
        "model_digest": sha256_file(workspace.model / "model.safetensors"),
    }

    def fetch_sample(image: int) -> Sample:
        source = pool.sources[pool.image_source[image]]
        found = read_image(manifest, shards, source, "valid", int(pool.image_row[image]))
        if found.key != pool.keys[image]:
            raise ZeroVLError(
                f"{source}: row {pool.image_row[image]} is {found.key}, expected {pool.keys[image]}; the manifest "
                "and the shards do not belong together, run `dvc repro -f prepare`"
            )
        return found

    def fetch(image: int) -> bytes:
        return fetch_sample(image).image

    folder = workspace.evaluation_report
    chosen = gallery.choose(pool, ours, scores[OVERALL], settings.gallery, settings.seed)
    _write_report(folder, workspace, settings, metrics, chosen, fetch)
    write_queries(folder / "queries.parquet", pool, scores)
    sample.write(folder / "sample", pool, ours, sample.draw(pool, settings.sample, settings.seed), fetch_sample)
    write_json(folder / "metrics.json", metrics)
    print(summary(pool, scores))
    print(f"report: {folder / 'report.html'}")


def validation_batches(
    manifest: Manifest, shards: ShardReader, model: Encoder, batch_size: int
) -> dict[str, tuple[int, Iterator[EvaluationBatch]]]:
    """What `pool.encode` takes: by source the number of pictures, and the batches with `model`'s preprocessing."""
    return {
        source: (manifest.pairs(source, "valid"), _batches(manifest, shards, source, model, batch_size))
        for source in manifest.sources("valid")
    }


def _batches(
    manifest: Manifest, shards: ShardReader, source: str, model: Encoder, batch_size: int
) -> Iterator[EvaluationBatch]:
    """A split's batches; its worker processes start when the first one is asked for."""
    # On a CPU the encoder itself is what all cores are busy with.
    workers = 0 if model.device.type == "cpu" else min(MAX_WORKERS, os.cpu_count() or 1)
    with evaluation_batches(manifest, shards, source, "valid", model.transform, batch_size, workers) as batches:
        yield from batches


def evaluation_digest(manifest: Manifest) -> str:
    """Equal when and only when scores of two models can be compared: same valid shards, same metric.

    Settings that move neither recalls nor RSUM (chunk, batch size, resamples, gallery) are left out.
    """
    splits = [
        [source, [shard.sha256 for shard in manifest.splits[source, "valid"].shards]]
        for source in manifest.sources("valid")
    ]
    return sha256_json([METRIC, splits])


def summary(pool: Pool, scores: dict[str, Scores]) -> str:
    """A table for the terminal."""
    blocks = [*by_source(pool, scores).items()]
    if len(blocks) > 1:
        blocks.append(("all", scores[OVERALL]))
    width = max(6, *(len(name) for name, _ in blocks))
    lines = [f"{'source':{width}}  images  captions    RSUM  [95% interval]  untrained  chance"]
    for name, its in blocks:
        block = its.to_json()
        interval = f"[{block['rsum_low']:.1f}, {block['rsum_high']:.1f}]"
        lines.append(
            f"{name:{width}}  {block['images']:6}  {block['captions']:8}  {block['rsum']:6.1f}  {interval:14}"
            f"  {block['untrained_rsum']:9.1f}  {block['chance_rsum']:6.1f}"
        )
    return "\n".join(lines)


def _write_report(
    folder: Path,
    workspace: Workspace,
    settings: EvaluateParams,
    metrics: dict[str, Any],
    chosen: gallery.Gallery,
    fetch: gallery.Fetch,
) -> None:
    fitted, pictures = gallery.fit(chosen, fetch, PICTURE_BUDGET)
    page = report.render(
        report.Content(
            metrics=metrics,
            resamples=settings.bootstrap,
            curves=report.read_curves(workspace.training_report / "metrics.jsonl"),
            verdict=report.read_verdict(workspace.validation_report / "verdict.json"),
            gallery=fitted,
            pictures=pictures,
        )
    )
    with atomic_write(folder / "report.html", "w") as file:
        file.write(page)
    report.draw_gallery(chosen, fetch, metrics["overall"], folder / "gallery.png")
