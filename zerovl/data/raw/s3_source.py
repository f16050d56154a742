"""Raw WebDataset shards on S3: list them, fetch one (see `zerovl.s3` for endpoint and credentials)."""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path

from zerovl import s3
from zerovl.data.raw.records import is_tar
from zerovl.data.raw.unread_files import unpacked_name
from zerovl.data.stated_samples import files_beside

_BESIDE = files_beside(".tar")  # endings of the files that state samples


class ListedTars:
    """The tars under `s3://bucket/prefix`, and what belongs to them, listed when first asked for, and not again."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def states(self) -> dict[str, str]:
        """URI -> what changes when the object does, by URI; raises as `object_states`."""
        return {uri: state for uri, state in self.objects.items() if is_tar(uri)}

    def is_stated(self, tar: str) -> bool:
        """Return whether there is a file beside a tar that may state how many samples it has."""
        return any(file in self.objects for file in files_beside(tar))

    @cached_property
    def objects(self) -> dict[str, str]:
        """What `object_states` returns."""
        return object_states(self._uri)


def object_states(uri: str) -> dict[str, str]:
    """Return URI -> what changes when the object does (size and ETag) of what matters under `s3://bucket/prefix`.

    That is tars, compressed ones and files that state their samples, sorted by URI. Raises `ZeroVLError` if they
    cannot be listed.
    """
    place = s3.parse(uri)
    prefix = place.path.rstrip("/")
    bucket = _bucket(place.bucket)
    pages = bucket.client.get_paginator("list_objects_v2")
    with bucket.explained(f"{uri}: cannot list its tars"):
        listed = pages.paginate(Bucket=bucket.name, Prefix=f"{prefix}/" if prefix else "")
        items = [item for page in listed for item in page.get("Contents", []) if _matters(item["Key"])]
    states = {f"{s3.PREFIX}{bucket.name}/{item['Key']}": f"{item['Size']} {item['ETag']}" for item in items}
    return dict(sorted(states.items()))


def _matters(key: str) -> bool:
    return is_tar(key) or is_tar(unpacked_name(key)) or key.endswith(_BESIDE)


def fetch(uri: str, path: Path) -> None:
    """Download one object, several parts at a time; `ZeroVLError` if it cannot be fetched."""
    place = s3.parse(uri)
    bucket = _bucket(place.bucket)
    with bucket.explained(f"{uri}: cannot fetch it"):
        bucket.client.download_file(bucket.name, place.path, str(path))


@cache
def _bucket(name: str) -> s3.Bucket:
    return s3.Bucket(name)
