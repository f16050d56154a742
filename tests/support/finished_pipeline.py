"""Files that stand for a model and its reports, where nothing loads them."""

from __future__ import annotations

from typing import Any

from zerovl.files import write_json
from zerovl.workspace import Workspace


def write_pipeline(
    workspace: Workspace,
    weights: bytes = b"weights",
    rsum: float = 300.0,
    evaluation: str = "data-1",
    passed: bool = True,
    **metrics: Any,
) -> None:
    """Everything that the stages before `register` leave; other weights are another model."""
    workspace.model.mkdir(parents=True, exist_ok=True)
    (workspace.model / "model.safetensors").write_bytes(weights)
    (workspace.model / "config.json").write_text("{}")
    (workspace.model / "tokenizer.json").write_text("{}")
    (workspace.model / ".gitignore").write_text("not part of it")
    scores = {"i2t_r1": 40.123, "rsum": rsum, "rsum_low": rsum - 7.5, "rsum_high": rsum + 8.25, "chance_rsum": 16.0}
    write_json(
        workspace.evaluation_metrics,
        {
            "mean": scores,
            "overall": {**scores, "rsum": 100.0},
            "sources": {"shapes": {"rsum": rsum}, "web": {"rsum": rsum}},
            "evaluation_digest": evaluation,
            **metrics,
        },
    )
    workspace.evaluation_queries.write_bytes(b"ranks of " + weights)
    (workspace.evaluation_report / "sample").mkdir(exist_ok=True)
    (workspace.evaluation_report / "sample" / "pairs.tar").write_bytes(b"pairs")
    (workspace.evaluation_report / "sample" / "embeddings.safetensors").write_bytes(b"of " + weights)
    splits = {"train": {"pairs": 1600, "broken": 2}, "valid": {"pairs": 200, "broken": 1}}
    write_json(workspace.manifest_file, {"digest": "data-digest", "sources": {"shapes": splits}})
    write_json(workspace.validation_verdict, {"passed": passed, "manifest_digest": "data-digest"})
    write_json(workspace.training_metrics, {"final_loss": 0.5, "steps": 10})
