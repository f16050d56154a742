"""Parts of shards from S3 by ranged GET; endpoint and credentials come from the environment."""

from __future__ import annotations

import os
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from zerovl.errors import ZeroVLError

ATTEMPTS = 6
TIMEOUT_SECONDS = 30


class S3Ranges:
    """`zerovl.data.shards.ByteRanges` under s3://bucket/prefix; picklable and safe to use after a fork."""

    def __init__(self, root: str) -> None:
        bucket, _, prefix = root.removeprefix("s3://").partition("/")
        if not bucket:
            raise ZeroVLError(f"{root!r} names no bucket; write it as s3://bucket/prefix")
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._client: Any = None
        self._owner = 0  # process that made the client: its connections must not be shared

    def read(self, path: str, offset: int, size: int) -> bytes:
        """At most `size` bytes; raises `FileNotFoundError`, `OSError`."""
        key = f"{self._prefix}/{path}" if self._prefix else path
        try:
            reply = self._connected().get_object(
                Bucket=self._bucket, Key=key, Range=f"bytes={offset}-{offset + size - 1}"
            )
            content: bytes = reply["Body"].read()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404"):
                raise FileNotFoundError(key) from None
            if code in ("InvalidRange", "416"):
                return b""
            raise OSError(f"S3 answers {code}: {error}") from None
        except BotoCoreError as error:
            raise OSError(f"S3 fails: {error}") from None
        return content

    def close(self) -> None:
        if self._client is not None and self._owner == os.getpid():
            self._client.close()
        self._client = None

    def _connected(self) -> Any:
        if self._client is None or self._owner != os.getpid():
            config = Config(
                retries={"max_attempts": ATTEMPTS, "mode": "standard"},
                connect_timeout=TIMEOUT_SECONDS,
                read_timeout=TIMEOUT_SECONDS,
            )
            self._client = boto3.session.Session().client("s3", config=config)
            self._owner = os.getpid()
        return self._client

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None, "_owner": 0}
