"""`zerovl evaluate`: retrieval on every validation split, against an untrained model and chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerovl.data.manifest import Manifest
from zerovl.data.shards import Sample, ShardReader
from zerovl.data.split_reader import read_image
from zerovl.errors import ZeroVLError
from zerovl.evaluation.pool import Pool, encode
from zerovl.evaluation.report import gallery, page
from zerovl.evaluation.scores import OVERALL, Scores, by_source, score, write_queries
from zerovl.evaluation.validation_set import evaluation_digest, validation_batches
from zerovl.files import atomic_write, sha256_file, write_json
from zerovl.model.encoder import Encoder
from zerovl.params import EvaluateParams, Params
from zerovl.release import sample
from zerovl.workspace import Workspace

PICTURE_BUDGET = 2_900_000  # characters of pictures in report.html


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
    write_queries(workspace.evaluation_queries, pool, scores)
    sample.write(folder / "sample", pool, ours, sample.draw(pool, settings.sample, settings.seed), fetch_sample)
    write_json(workspace.evaluation_metrics, metrics)
    print(summary(pool, scores))
    print(f"report: {workspace.evaluation_page}")


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
    text = page.render(
        page.Content(
            metrics=metrics,
            resamples=settings.bootstrap,
            curves=page.read_curves(workspace.training_log),
            verdict=page.read_verdict(workspace.validation_verdict),
            gallery=fitted,
            pictures=pictures,
        )
    )
    with atomic_write(workspace.evaluation_page, "w") as file:
        file.write(text)
    page.draw_gallery(chosen, fetch, metrics["overall"], workspace.evaluation_gallery)
