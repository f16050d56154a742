"""What the page says of the model: facts, its card and its report, where they are there and are of this model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.evaluation.metrics import HEADLINE, headline_block, headline_title
from zerovl.files import read_json, sha256_file
from zerovl.indexing.index import Index
from zerovl.registry import release_files
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class About:
    """A model and what is known of it."""

    reference: str
    card: str | None  # Markdown
    report: Path | None  # HTML
    metrics: Mapping[str, Any] | None

    def to_json(self, index: Index) -> dict[str, Any]:
        """Return what the page shows of model and index."""
        described = index.description
        facts = [
            ["Pictures", f"{described.pictures:,}"],
            ["Embedding", f"{described.width} wide"],
            ["Digest", described.model.digest[:12]],
        ]
        if self.metrics is not None:
            facts.insert(1, [headline_title(self.metrics), f"{headline_block(self.metrics)[1][HEADLINE.name]:.1f}"])
        return {
            "model": self.reference,
            "pictures": described.pictures,
            "facts": facts,
            "card": self.card is not None,
            "report": self.report is not None,
        }


def about(reference: str, model: Path, workspace: Workspace) -> About:
    """Gather what is known of a model's folder; the report of this checkout counts where it is of the same weights."""
    card = model / release_files.MODEL_CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None  # the cache may drop the file
    metrics, report = _metrics(model / release_files.METRICS), None
    here = _metrics(workspace.evaluation_metrics)
    if here is not None and here.get("model_digest") == sha256_file(model / release_files.WEIGHTS):
        metrics = here
        report = workspace.evaluation_page if workspace.evaluation_page.is_file() else None
    return About(reference, text, report, metrics)


def _metrics(path: Path) -> Mapping[str, Any] | None:
    """Scores that have a headline, None where there are none."""
    try:
        found = read_json(path) if path.is_file() else None
        if found is not None:
            float(headline_block(found)[1][HEADLINE.name])
        return found
    except (ZeroVLError, KeyError, TypeError, ValueError, AttributeError):
        return None
