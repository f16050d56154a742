"""What a run reads before its first step: the verdict, the tokenizer, the weights to start from."""

from __future__ import annotations

from pathlib import Path

from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.params import Params
from zerovl.workspace import Workspace


def check_verdict(workspace: Workspace, manifest: Manifest) -> None:
    """Refuse to train on data that was not validated, or failed."""
    path = workspace.validation_report / "verdict.json"
    verdict = read_json(path)
    if verdict["manifest_digest"] != manifest.digest:
        raise ZeroVLError(f"{path}: judges other data than {manifest.folder}; run `dvc repro validate`")
    if not verdict["passed"]:
        raise ZeroVLError(f"{path}: the data did not pass; mend them, or the bounds in params.yaml, and validate again")


def tokenizer_folder(params: Params, workspace: Workspace) -> Path:
    """Of the bundle to start from, whose word embeddings go by its ids; else the trained one, else the tower's."""
    if start := starting_weights(params):
        return start
    source = read_json(workspace.tokenizer / "source.json")
    if source["trained"]:
        return workspace.tokenizer
    name = params.model.text_tower.name
    if not name:
        raise ZeroVLError(
            "prepare.tokenizer_vocab is 0 and model.text_tower.name is empty: there is no tokenizer; "
            "set prepare.tokenizer_vocab (for example 8000) or name a text tower"
        )
    if Path(name).is_dir():
        return Path(name)
    return _cached_tokenizer(name)


def _cached_tokenizer(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        raise ZeroVLError(
            f"model.text_tower.name: the tokenizer of {name} is not on this machine; run `zerovl fetch-weights` once"
        ) from None


def starting_weights(params: Params) -> Path | None:
    """The bundle that `train.init_from` names; releases are fetched with `zerovl registry pull` first."""
    if not params.train.init_from:
        return None
    folder = Path(params.train.init_from)
    if not (folder / "config.json").is_file():
        raise ZeroVLError(
            f"train.init_from: {folder} is no bundle; fetch a release with "
            "`zerovl registry pull NAME@ALIAS --out FOLDER` and name that folder"
        )
    return folder
