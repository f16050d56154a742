"""Where the stages read and write, relative to the project's folder, and the names of what they hand on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MANIFEST_FILE = "manifest.json"
# Of a run's folder in `runs/`: what it trains on, of which it has its name, and one JSON object a step.
RUN_DESCRIPTION, RUN_LOG = "fingerprint.json", "metrics.jsonl"
METRICS = "metrics.json"  # of the reports of train and evaluate
DVC_ROOT_VARIABLE = (
    "DVC_ROOT"  # set by DVC for each command of a stage: its project, https://dvc.org/doc/user-guide/env
)


def main_checkout(folder: Path) -> Path | None:
    """Return the checkout that `folder` is a temporary copy of; None where it is not one.

    DVC makes copies in `.dvc/tmp` for `dvc exp run --temp` and the experiments of its queue, and deletes them.
    """
    root = Path(os.environ.get(DVC_ROOT_VARIABLE) or folder).resolve()
    return root if folder.resolve().is_relative_to(root / ".dvc" / "tmp") else None


@dataclass(frozen=True)
class Workspace:
    """The folders of one checkout; `dvc.yaml` declares the same ones."""

    root: Path = Path(".")

    @property
    def shared(self) -> Path:
        """Where run state and a store in a relative folder are: here, or in the checkout that this is a copy of."""
        return main_checkout(self.root) or self.root

    @property
    def shards(self) -> Path:
        """WebDataset tars, made by prepare."""
        return self.root / "data" / "shards"

    @property
    def packed(self) -> Path:
        """Shards of a prepare that is not done: no DVC output, since DVC deletes those before a stage runs again."""
        return self.root / "data" / ".prepare"

    @property
    def tar_indexes(self) -> Path:
        """What is in tars that stay where they lie, kept for the next prepare: no DVC output, as `packed`."""
        return self.shared / "data" / ".tars"

    @property
    def manifest(self) -> Path:
        """What every shard holds, made by prepare."""
        return self.root / "data" / "manifest"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that prepare learned, where it did."""
        return self.root / "data" / "tokenizer"

    @property
    def model(self) -> Path:
        """The trained model, a bundle."""
        return self.root / "model"

    @property
    def runs(self) -> Path:
        """Run state, on purpose no DVC output: DVC deletes outputs before a stage runs."""
        return self.shared / "runs"

    @property
    def validation_report(self) -> Path:
        """What validate writes."""
        return self.root / "reports" / "validation"

    @property
    def training_report(self) -> Path:
        """What train writes beside the model."""
        return self.root / "reports" / "training"

    @property
    def evaluation_report(self) -> Path:
        """What evaluate writes."""
        return self.root / "reports" / "evaluation"

    @property
    def manifest_file(self) -> Path:
        """Counts and digests of all shards; written last by prepare."""
        return self.manifest / MANIFEST_FILE

    @property
    def tokenizer_source(self) -> Path:
        """Says whether prepare trained a tokenizer."""
        return self.tokenizer / "source.json"

    @property
    def validation_verdict(self) -> Path:
        """The verdict on the data; written last by validate."""
        return self.validation_report / "verdict.json"

    @property
    def validation_page(self) -> Path:
        """The page of the validation."""
        return self.validation_report / "index.html"

    @property
    def training_metrics(self) -> Path:
        """The summary of the last training."""
        return self.training_report / METRICS

    @property
    def training_log(self) -> Path:
        """One JSON object a step."""
        return self.training_report / RUN_LOG

    @property
    def training_streams(self) -> Path:
        """What was read and lost of streamed sources; absent where the pairs were prepared."""
        return self.training_report / "streams.json"

    @property
    def training_run(self) -> Path:
        """Which run trained the model: its fingerprint, the run that it went on from, and what it warns of."""
        return self.training_report / "run.json"

    @property
    def evaluation_metrics(self) -> Path:
        """The scores; written last by evaluate."""
        return self.evaluation_report / METRICS

    @property
    def evaluation_details(self) -> Path:
        """What evaluators found beside their metrics, where there is anything."""
        return self.evaluation_report / "details.json"

    @property
    def evaluation_scores(self) -> Path:
        """The numbers of them that a person compares; what DVC shows as metrics."""
        return self.evaluation_report / "scores.json"

    @property
    def evaluation_queries(self) -> Path:
        """Ranks by query, for paired comparisons."""
        return self.evaluation_report / "queries.parquet"

    @property
    def evaluation_items(self) -> Path:
        """What metrics beside retrieval count of each item, for paired comparisons."""
        return self.evaluation_report / "items.parquet"

    @property
    def evaluation_page(self) -> Path:
        """The page of the evaluation."""
        return self.evaluation_report / "report.html"

    @property
    def evaluation_gallery(self) -> Path:
        """Queries and what was found for them, as one picture."""
        return self.evaluation_report / "gallery.png"

    @property
    def code_report(self) -> Path:
        """What each stage runs, for DVC to compare (see `code_closure`)."""
        return self.root / "reports" / "code"

    @property
    def release(self) -> Path:
        """The last release, written by register."""
        return self.root / "reports" / "release.json"
