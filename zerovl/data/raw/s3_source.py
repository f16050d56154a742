"""Raw WebDataset shards on S3: list them, fetch one.

Endpoint and credentials come from the usual environment: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION, AWS_PROFILE.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError


def list_tars(uri: str) -> list[str]:
    """URIs of all `.tar` objects under `s3://bucket/prefix`, sorted; `ZeroVLError` if it cannot be listed."""
    bucket, prefix = _split(uri)
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    client = _client()
    with _explained(uri):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return sorted(f"s3://{bucket}/{key}" for key in keys if key.endswith(".tar"))


def fetch(uri: str, path: Path) -> None:
    """Download one object; parts are retried by boto3, what remains is a `ZeroVLError`."""
    bucket, key = _split(uri)
    client = _client()
    with _explained(uri):
        client.download_file(bucket, key, str(path))


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise ZeroVLError(f"{uri!r}: expected s3://bucket/prefix")
    return bucket, key


@cache
def _client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise ZeroVLError("sources on s3:// need boto3; install it: pip install 'zerovl[pipeline]'") from None
    return boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": 5}))


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        raise ZeroVLError(
            f"{uri}: {error}; check bucket, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
