"""Raw WebDataset shards on S3: list them, fetch one (see `zerovl.s3` for endpoint and credentials)."""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path

from zerovl import s3


class ListedTars:
    """The `.tar` objects under `s3://bucket/prefix`, listed when they are first asked for, and not again."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def states(self) -> dict[str, str]:
        """URI -> what changes when the object does, by URI; raises as `tar_states`."""
        return tar_states(self._uri)


def tar_states(uri: str) -> dict[str, str]:
    """Return URI -> what changes when the object does (size and ETag) of all `.tar` objects under `s3://bucket/prefix`.

    They are sorted by URI. Raises `ZeroVLError` if they cannot be listed.
    """
    place = s3.parse(uri)
    prefix = place.path.rstrip("/")
    bucket = _bucket(place.bucket)
    pages = bucket.client.get_paginator("list_objects_v2")
    with bucket.explained(f"{uri}: cannot list its tars"):
        listed = pages.paginate(Bucket=bucket.name, Prefix=f"{prefix}/" if prefix else "")
        items = [item for page in listed for item in page.get("Contents", []) if item["Key"].endswith(".tar")]
    states = {f"{s3.PREFIX}{bucket.name}/{item['Key']}": f"{item['Size']} {item['ETag']}" for item in items}
    return dict(sorted(states.items()))


def fetch(uri: str, path: Path) -> None:
    """Download one object, several parts at a time; `ZeroVLError` if it cannot be fetched."""
    place = s3.parse(uri)
    bucket = _bucket(place.bucket)
    with bucket.explained(f"{uri}: cannot fetch it"):
        bucket.client.download_file(bucket.name, place.path, str(path))


@cache
def _bucket(name: str) -> s3.Bucket:
    return s3.Bucket(name)
