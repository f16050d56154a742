"""Stores of releases: a folder, or a bucket of S3."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from zerovl.errors import ZeroVLError
from zerovl.registry.stores.base import Store


def open_store(uri: str) -> Store:
    """Open a folder or `s3://bucket/prefix`; endpoint and keys of S3 come from the environment."""
    if not uri:
        raise ZeroVLError("the store is empty; name a folder or s3://bucket/prefix")
    if "://" not in uri:
        from zerovl.registry.stores.folder import FolderStore

        return FolderStore(Path(uri).expanduser())
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise ZeroVLError(f"store {uri!r}: not a folder and not of the form s3://bucket/prefix")
    try:
        from zerovl.registry.stores.s3 import S3Store
    except ModuleNotFoundError as error:
        raise ZeroVLError(f"store {uri}: {error.name} is not installed; run `pip install boto3`") from None
    return S3Store(parts.netloc, parts.path.strip("/"))
