"""Send an exported folder to a model hub, by huggingface_hub: the hub of HF_ENDPOINT, as whoever the token is of."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from huggingface_hub import HfApi, ModelCard, constants, get_token

from zerovl.errors import ZeroVLError
from zerovl.interop.hub_card import FILE, TAG

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def push(folder: Path, repository: str, message: str, private: bool) -> str:
    """Create the repository where it is not there, send all files of the folder, and return the commit's address.

    Args:
        folder: that `zerovl export` wrote.
        repository: ORGANISATION/NAME.
        message: of the commit.
        private: a repository that is created now; one that is there stays as it is.

    Raises:
        ZeroVLError: the folder is not an export, the name is not one of a repository, there is no token, or the hub
            refuses or gives no answer.
    """
    _check_export(folder)
    _check_name(repository)
    if constants.HF_HUB_OFFLINE:
        raise ZeroVLError(
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so no hub is asked; unset it for this command"
        )
    _check_token()
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        done = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except Exception as error:  # its HTTP library, and so what that raises, differ from version to version
        raise ZeroVLError(
            f"{hub.endpoint}: {repository} was not pushed ({_reason(error)}); when that is fixed, the same command "
            "sends what is missing"
        ) from None
    return done.commit_url


def _check_token() -> None:
    try:
        token = get_token()
    except Exception as error:  # a file that may not be read, or a service of short-lived tokens that refuses
        raise ZeroVLError(
            f"the token of the hub cannot be had ({_reason(error)}); fix that, or give HF_TOKEN"
        ) from None
    if token is None:
        raise ZeroVLError("no token of the hub; `hf auth login` keeps one, or give HF_TOKEN one that may write")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_export(folder: Path) -> None:
    card = folder / FILE
    try:  # only of a file: the library takes anything else for a repository, and asks the hub
        tags = (ModelCard.load(card).data.tags if card.is_file() else None) or []
    except (OSError, ValueError, yaml.YAMLError):
        tags = []
    if TAG not in tags:
        raise ZeroVLError(
            f"{folder}: no {FILE} with the metadata that `zerovl export` writes; give the folder of an export"
        )


def _check_name(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository):
        raise ZeroVLError(f"{repository}: not a repository of a hub; give ORGANISATION/NAME or USER/NAME")
