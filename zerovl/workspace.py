"""Where the stages read and write, relative to the project's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The folders of one checkout; `dvc.yaml` declares the same ones."""

    root: Path = Path(".")

    @property
    def shards(self) -> Path:
        return self.root / "data" / "shards"

    @property
    def manifest(self) -> Path:
        return self.root / "data" / "manifest"

    @property
    def tokenizer(self) -> Path:
        return self.root / "data" / "tokenizer"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def runs(self) -> Path:
        """Run state, on purpose no DVC output: DVC deletes outputs before a stage runs."""
        return self.root / "runs"

    @property
    def validation_report(self) -> Path:
        return self.root / "reports" / "validation"

    @property
    def training_report(self) -> Path:
        return self.root / "reports" / "training"

    @property
    def evaluation_report(self) -> Path:
        return self.root / "reports" / "evaluation"

    @property
    def release(self) -> Path:
        return self.root / "reports" / "release.json"
