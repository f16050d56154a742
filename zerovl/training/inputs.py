"""What a run reads before its first step: the verdict, the tokenizer, the weights to start from."""

from __future__ import annotations

from pathlib import Path

from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.params import Params
from zerovl.training.start import Start
from zerovl.workspace import Workspace

NO_TOKENIZER = (
    "prepare.tokenizer_vocab is 0 and model.text_tower.name is empty: there is no tokenizer; "
    "set prepare.tokenizer_vocab (for example 8000) or name a text tower"
)


def check_verdict(workspace: Workspace, manifest: Manifest) -> None:
    """Refuse to train on data that was not validated, or failed."""
    path = workspace.validation_verdict
    verdict = read_json(path)
    if verdict["manifest_digest"] != manifest.digest:
        raise ZeroVLError(f"{path}: is of other data than {manifest.folder}; run `dvc repro validate`")
    if not verdict["passed"]:
        raise ZeroVLError(f"{path}: the data did not pass; fix them, or the bounds in params.yaml, and validate again")


def tokenizer_folder(params: Params, workspace: Workspace, start: Start | None) -> Path:
    """Return the tokenizer of the weights to start from, whose word embeddings go by its ids; else the data's own."""
    if start and (folder := start.tokenizer):
        return folder
    return data_tokenizer(params, workspace)


def data_tokenizer(params: Params, workspace: Workspace) -> Path:
    """Return the tokenizer that `prepare` trained, else that of the text tower; raises `ZeroVLError` for neither."""
    source = read_json(workspace.tokenizer_source)
    if source["trained"]:
        return workspace.tokenizer
    name = params.model.text_tower.name
    if not name:
        raise ZeroVLError(NO_TOKENIZER)
    return Path(name) if Path(name).is_dir() else _cached_tokenizer(name)


def _cached_tokenizer(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        raise ZeroVLError(
            f"model.text_tower.name: the tokenizer of {name} is not on this machine; run `zerovl fetch-weights` once"
        ) from None
