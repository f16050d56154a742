"""`zerovl code`: what each stage runs, and what it reads from elsewhere, as files that DVC compares."""

from __future__ import annotations

from zerovl import code_closure, params_file
from zerovl.evaluation.classification.listing import listing_digest
from zerovl.files import write_json
from zerovl.params import Params
from zerovl.workspace import Workspace

_LIMITS = ("max_caption_bytes", "max_pixels")  # of `prepare`, for streamed pairs too


def write(workspace: Workspace) -> None:
    """Write `reports/code/STAGE.json`, digest by file, for every stage; equal code gives equal bytes.

    That of `evaluate` has the sets of `evaluate.classification` too: a set that changed is evaluated again. Where
    training streams, that of `validate` has its sources, which the verdict names, and that of `train` the limits of
    their pairs; for parameters of a stage in dvc.yaml DVC refuses each params.yaml that lacks them.

    Raises:
        ZeroVLError: params.yaml cannot be read, or one of its sets is not there.
    """
    path = workspace.root / "params.yaml"
    params = params_file.load(path) if path.is_file() else Params()
    read = {
        "evaluate": {
            f"evaluate.classification {its.name}": listing_digest(its) for its in params.evaluate.classification
        },
        "validate": {f"train.streaming {name}": "not looked at" for name in params.train.streamed},
        "train": {f"prepare.{key}": str(getattr(params.prepare, key)) for key in _LIMITS if params.train.streamed},
    }
    for stage in code_closure.STAGES:
        write_json(workspace.code_report / f"{stage}.json", code_closure.digests(stage) | read.get(stage, {}))
