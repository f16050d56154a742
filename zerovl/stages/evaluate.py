"""Run the stage `evaluate`: score the model on every validation split, against an untrained model and chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zerovl.bundle_files import WEIGHTS
from zerovl.data.manifest import Manifest
from zerovl.data.shards import Sample
from zerovl.data.split_reader import read_image
from zerovl.errors import ZeroVLError
from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.comparable import DIGEST, evaluation_digest
from zerovl.evaluation.early_helpers import Helpers
from zerovl.evaluation.items import write_items
from zerovl.evaluation.job import Job
from zerovl.evaluation.metrics import (
    HEADLINE,
    OVERALL,
    UNSEEN,
    blocks,
    cell,
    details_json,
    further_evaluators,
    metric_names,
    metrics_json,
    retrieval_blocks,
)
from zerovl.evaluation.report import content, gallery, page
from zerovl.evaluation.report.curves import read_curves
from zerovl.evaluation.report.gallery_picture import draw_gallery
from zerovl.evaluation.score_file import compared_numbers, read_final_loss
from zerovl.evaluation.scores import write_queries
from zerovl.evaluation.training_warnings import read_warnings
from zerovl.files import atomic_write, read_json, sha256_file, write_json
from zerovl.params import Params
from zerovl.registry import release_files
from zerovl.release import current_holder, sample
from zerovl.text_format import table
from zerovl.workspace import Workspace

PICTURE_BUDGET = 2_900_000  # characters of pictures in report.html


def run(
    params: Params,
    workspace: Workspace = Workspace(),  # noqa: B008  (frozen)
    early: Helpers | None = None,
) -> None:
    """Write `reports/evaluation/`: metrics, scores, figures by query and by item, `sample/`, the page, the gallery.

    Beside them `details.json`, where an evaluator has something to say that is no metric. `early` are helpers that were
    started before (`zerovl.evaluation.early_helpers`).

    Raises:
        ZeroVLError: there is no validation split or no model, the shards do not fit the manifest, or a set of
            `evaluate.classification` cannot be used; or a rank of `machine.ranks` died. Nothing is written then.
    """
    settings = params.evaluate
    manifest = Manifest.load(workspace.manifest)
    if not manifest.sources("valid"):
        raise ZeroVLError(
            f"{workspace.manifest}: no source has a valid split, so there is nothing to evaluate on; let "
            f"prepare.draw_valid.fraction set pictures aside for one, or add one to a source in {params.data.raw} "
            "(data/README.md shows how), then run `dvc repro`"
        )
    job = Job(settings, params.machine, workspace.root, workspace.root, workspace.model)
    evaluation, tables = job.evaluate(early)
    streams = workspace.training_streams
    trained_on = read_json(streams)["pairs"] if streams.is_file() else manifest.training_sizes()
    facts = {
        UNSEEN: [source for source in manifest.sources("valid") if source not in trained_on],
        DIGEST: evaluation_digest(manifest),
        "model_digest": sha256_file(workspace.model / WEIGHTS),
    }
    metrics, details = metrics_json(tables, facts), details_json(tables)
    stored = StoredPairs(evaluation)
    workspace.evaluation_details.unlink(missing_ok=True)
    if details:
        write_json(workspace.evaluation_details, details)
    write_queries(workspace.evaluation_queries, evaluation.pool, evaluation.scores)
    write_items(workspace.evaluation_items, tables)
    _write_report(workspace, params, evaluation, metrics, details, stored)
    drawn = sample.draw(evaluation.pool, settings.sample, settings.seed)
    folder = workspace.evaluation_report / release_files.SAMPLE
    sample.write(folder, evaluation.pool, evaluation.embeddings, drawn, stored.sample)
    write_json(workspace.evaluation_scores, compared_numbers(metrics, read_final_loss(workspace.training_metrics)))
    write_json(workspace.evaluation_metrics, metrics)  # last: it says that the stage ran
    print(summary(metrics))
    print(f"report: {workspace.evaluation_page}")


@dataclass(frozen=True)
class StoredPairs:
    """Reads the pool's pairs from the shards again, where their pictures are shown or released."""

    evaluation: Evaluation

    def sample(self, image: int) -> Sample:
        """Read the pair of a row of the pool; raises `ZeroVLError` where the shards hold another one there."""
        pool = self.evaluation.pool
        source, row = pool.sources[pool.image_source[image]], int(pool.image_row[image])
        found = read_image(self.evaluation.manifest, self.evaluation.shards, source, "valid", row)
        if found.key != pool.keys[image]:
            raise ZeroVLError(
                f"{source}: row {row} is {found.key}, expected {pool.keys[image]}; the manifest and the shards do not "
                "belong together, run `dvc repro -f prepare`"
            )
        return found

    def picture(self, image: int) -> bytes:
        """Read the picture of a row of the pool, as its file's bytes."""
        return self.sample(image).image


def summary(metrics: Mapping[str, Any]) -> str:
    """Return the scores as tables for the terminal: retrieval first, then each further evaluator."""
    parts = retrieval_blocks(metrics)
    head = ("source", "images", "captions", HEADLINE.label, "[95% interval]", "untrained", "chance")
    rows = [
        (
            name,
            f"{block['images']}",
            f"{block['captions']}",
            f"{block[HEADLINE.name]:.1f}",
            f"[{block[HEADLINE.low]:.1f}, {block[HEADLINE.high]:.1f}]",
            f"{block[HEADLINE.untrained]:.1f}",
            f"{block[HEADLINE.chance]:.1f}",
        )
        for name, block in parts
    ]
    text = table([head, *rows], right=frozenset({1, 2, 3, 5, 6}))
    for evaluator, its in further_evaluators(metrics).items():
        text += "\n" + _further_summary(evaluator, its)
    return text


def _further_summary(evaluator: str, its: Mapping[str, Any]) -> str:
    """A value with its interval a cell."""
    names = metric_names(its)
    rows = []
    for source, block in blocks(its):
        cells = (cell(block, name) for name in names)
        rows.append((source, *(f"{value} [{interval}]" if interval else value for value, interval in cells)))
    return table([(evaluator, *names), *rows], right=frozenset(range(1, len(names) + 1)))


def _write_report(
    workspace: Workspace,
    params: Params,
    evaluation: Evaluation,
    metrics: dict[str, Any],
    details: dict[str, Any],
    stored: StoredPairs,
) -> None:
    settings, overall = params.evaluate, evaluation.scores[OVERALL]
    chosen = gallery.choose(evaluation.pool, evaluation.embeddings, overall, settings.gallery, settings.seed)
    fitted, pictures = gallery.fit(chosen, stored.picture, PICTURE_BUDGET)
    text = page.render(
        content.Content(
            metrics=metrics,
            resamples=settings.bootstrap,
            curves=read_curves(workspace.training_log),
            verdict=content.read_verdict(workspace.validation_verdict),
            gallery=fitted,
            pictures=pictures,
            warnings=read_warnings(workspace.training_run),
            details=details,
            holder=current_holder.look_up(params, workspace, metrics),
        )
    )
    with atomic_write(workspace.evaluation_page, "w") as file:
        file.write(text)
    draw_gallery(chosen, stored.picture, metrics, workspace.evaluation_gallery)
