"""A store in a bucket of S3 or of a server that speaks its protocol.

Creation is exclusive by conditional writes: `PutObject` and `CompleteMultipartUpload` with
`If-None-Match: *`, which answer 412 where the key exists (AWS since August 2024; MinIO, Ceph,
Cloudflare R2 and others too). A server that ignores the condition is found by a probe before the
first write, and refused unless allowed by name.

The environment sets endpoint and keys as for any AWS client: AWS_ENDPOINT_URL_S3 or
AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_PROFILE.

An upload that is killed leaves parts that no listing shows; a lifecycle rule of the bucket
(AbortIncompleteMultipartUpload) removes them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from tqdm import tqdm

from zerovl.errors import ZeroVLError
from zerovl.registry.stores.base import BLOCK, MissingKeyError, check_key

ALLOW_VARIABLE = "ZEROVL_ALLOW_UNCONDITIONAL_PUT"

_PART_BYTES = 16 << 20  # larger files go up in parts of this size
_MAX_PARTS = 10_000  # limit of S3
_CONNECTIONS = 4
_ATTEMPTS = 6  # of a request that ends in 500, 503, a timeout or a broken connection
_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60
_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403")
_UNREACHABLE = (EndpointConnectionError, ConnectTimeoutError, ConnectionClosedError, ReadTimeoutError)
_BROKEN_STREAM = (IncompleteReadError, ResponseStreamingError, ReadTimeoutError, ConnectionClosedError)


class S3Store:
    """Keys are objects below `prefix`. One client serves all threads of a process."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._session = boto3.session.Session()
        try:
            self._client = self._session.client(
                "s3",
                config=Config(
                    retries={"mode": "standard", "max_attempts": _ATTEMPTS},
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_ANSWER_SECONDS,
                    max_pool_connections=_CONNECTIONS * 2,
                    # Every file has a sha256 of ours; many servers do not know the newer checksum headers.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except (ValueError, BotoCoreError) as error:
            raise ZeroVLError(f"store {self.uri}: {error}; check AWS_ENDPOINT_URL and the AWS_ variables") from None
        self._endpoint: str = self._client.meta.endpoint_url
        self._probe_lock = threading.Lock()
        self._conditional: bool | None = None  # unknown until the probe

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def create(self, key: str, source: Path | bytes) -> bool:
        name = self._name(key)
        with self._explained(f"write {key}"):
            self._probe_once()
            if not self._conditional and self._size(name) is not None:
                return False
            if isinstance(source, bytes) or source.stat().st_size <= _PART_BYTES:
                body = source if isinstance(source, bytes) else source.read_bytes()
                return self._until_settled(lambda: self._put(name, body, self._condition))
            return self._until_settled(lambda: self._put_parts(name, source))

    def exists(self, key: str) -> bool:
        with self._explained(f"look for {key}"):
            return self._size(self._name(key)) is not None

    def read(self, key: str) -> bytes:
        return b"".join(self.blocks(key))

    def blocks(self, key: str) -> Iterator[bytes]:
        return self._blocks_from(key, 0)

    def download(self, key: str, path: Path) -> None:
        """Goes on with `.<name>.part` where an earlier download was cut off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.part")
        with self._explained(f"read {key}"):
            size = self._size(self._name(key))
        if size is None:
            raise MissingKeyError(f"{self.describe()}: there is no {key}")
        start = aside.stat().st_size if aside.exists() else 0
        if start > size:
            aside.unlink()
            start = 0
        with open(aside, "ab") as file, _bar(path.name, size, start) as bar:
            if start < size:
                for block in self._blocks_from(key, start):
                    file.write(block)
                    bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)

    def keys(self, prefix: str) -> list[str]:
        found: list[str] = []
        with self._explained(f"list {prefix}"):
            for page in self._pages(prefix, ""):
                found += [item["Key"].removeprefix(self._prefix) for item in page.get("Contents", [])]
        return sorted(found)

    def folders(self, prefix: str) -> list[str]:
        found: list[str] = []
        with self._explained(f"list {prefix}"):
            for page in self._pages(prefix, "/"):
                found += [item["Prefix"].rstrip("/").rpartition("/")[2] for item in page.get("CommonPrefixes", [])]
        return sorted(found)

    def check(self) -> str:
        with self._explained("write a probe"):
            self._probe_once()
        if self._conditional:
            return "can be written, conditional PUT is honoured"
        return f"can be written, conditional PUT is ignored (allowed by {ALLOW_VARIABLE})"

    def describe(self) -> str:
        return f"{self.uri} at {self._endpoint}"

    # -- writing

    @property
    def _condition(self) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if self._conditional else {}

    def _put(self, name: str, body: bytes, condition: dict[str, str]) -> bool:
        try:
            self._client.put_object(Bucket=self._bucket, Key=name, Body=body, **condition)
        except ClientError as error:
            if _status(error) == 412:
                return False
            raise
        return True

    def _put_parts(self, name: str, path: Path) -> bool:
        if self._size(name) is not None:
            return False  # spares the transfer; the condition at the end is what decides
        upload = {"Bucket": self._bucket, "Key": name}
        upload["UploadId"] = self._client.create_multipart_upload(**upload)["UploadId"]
        try:
            parts = self._send_parts(upload, path)
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **self._condition)
        except BaseException as error:
            with suppress(ClientError, BotoCoreError):  # the first error is the one to report
                self._client.abort_multipart_upload(**upload)
            if isinstance(error, ClientError) and _status(error) == 412:
                return False
            # A retried completion whose first answer was lost finds its upload gone and the key there.
            if isinstance(error, ClientError) and _code(error) == "NoSuchUpload" and self._size(name) is not None:
                return False
            raise
        return True

    def _send_parts(self, upload: dict[str, str], path: Path) -> list[dict[str, Any]]:
        size = path.stat().st_size
        part_bytes = max(_PART_BYTES, -(-size // _MAX_PARTS))
        descriptor = os.open(path, os.O_RDONLY)
        executor = ThreadPoolExecutor(_CONNECTIONS)

        def send(number: int) -> dict[str, Any]:
            body = os.pread(descriptor, part_bytes, (number - 1) * part_bytes)
            answer = self._client.upload_part(**upload, PartNumber=number, Body=body)
            bar.update(len(body))
            return {"PartNumber": number, "ETag": answer["ETag"]}

        try:
            with _bar(path.name, size, 0) as bar:
                futures = [executor.submit(send, number) for number in range(1, -(-size // part_bytes) + 1)]
                return [future.result() for future in futures]
        finally:
            executor.shutdown(cancel_futures=True)
            os.close(descriptor)

    def _until_settled(self, put: Any) -> bool:
        """Repeat on 409: another write of the same key was under way, and neither has won yet."""
        for attempt in range(_ATTEMPTS - 1):
            try:
                return bool(put())
            except ClientError as error:
                if _status(error) != 409:
                    raise
                time.sleep(0.1 * 2**attempt)
        return bool(put())

    def _probe_once(self) -> None:
        """Find out whether the server honours the condition; refuse one that does not, unless allowed."""
        with self._probe_lock:
            if self._conditional is not None:
                return
            honoured = self._probe()
            host = urlsplit(self._endpoint).netloc
            if not honoured:
                allowed = [name.strip() for name in os.environ.get(ALLOW_VARIABLE, "").split(",")]
                if host not in allowed:
                    raise ZeroVLError(
                        f"{self.describe()}: the endpoint ignores conditional PUT (If-None-Match), so two publishers "
                        f"at once could overwrite each other's release; use an endpoint that honours it, or allow "
                        f"this one, with one publisher at a time, by {ALLOW_VARIABLE}={host}"
                    )
                print(
                    f"note: {self.describe()} ignores conditional PUT; allowed by {ALLOW_VARIABLE}={host}, "
                    "so publish from one place at a time",
                    file=sys.stderr,
                )
            self._conditional = honoured

    def _probe(self) -> bool:
        name = f"{self._prefix}probe-{uuid.uuid4().hex}"
        condition = {"IfNoneMatch": "*"}
        try:
            # Where the first one's answer was lost, its repetition met itself, so what it says does not count.
            self._put(name, b"probe", condition)
            return not self._put(name, b"again", condition)
        except ClientError as error:
            if _status(error) == 501 or _code(error) == "NotImplemented":
                return False
            raise
        finally:
            # Without the right to delete, a probe of 5 bytes stays behind; that harms nobody.
            with suppress(ClientError, BotoCoreError):
                self._client.delete_object(Bucket=self._bucket, Key=name)

    # -- reading

    def _blocks_from(self, key: str, start: int) -> Iterator[bytes]:
        """Bytes from `start` on; goes on where a connection broke, up to `_ATTEMPTS` times without progress."""
        failures = 0
        while True:
            before = start
            try:
                with self._explained(f"read {key}"):
                    try:
                        ranged = {"Range": f"bytes={start}-"} if start else {}
                        answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **ranged)
                    except ClientError as error:
                        if _code(error) in ("NoSuchKey", "404"):
                            raise MissingKeyError(f"{self.describe()}: there is no {key}") from None
                        raise
                end = start + answer["ContentLength"]
                for block in answer["Body"].iter_chunks(BLOCK):
                    start += len(block)
                    yield block
                if start >= end:
                    return
            except _BROKEN_STREAM as error:
                failures = 0 if start > before else failures + 1
                if failures == _ATTEMPTS:
                    raise ZeroVLError(f"{self.describe()}: cannot read {key}: {error}; run it again") from None
                time.sleep(0.2 * 2**failures)

    def _size(self, name: str) -> int | None:
        try:
            return int(self._client.head_object(Bucket=self._bucket, Key=name)["ContentLength"])
        except ClientError as error:
            if _status(error) == 404:
                return None
            raise

    def _pages(self, prefix: str, delimiter: str) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator("list_objects_v2")
        yield from paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix, Delimiter=delimiter)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn what botocore raises into what to check."""
        where = f"{self.describe()}: cannot {action}"
        try:
            yield
        except ClientError as error:
            raise self._explain(error, where) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise ZeroVLError(f"{where}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
        except SSLError as error:
            raise ZeroVLError(
                f"{where}: {error}; check the scheme of AWS_ENDPOINT_URL, or name its CA by AWS_CA_BUNDLE"
            ) from None
        except (*_UNREACHABLE, ProxyConnectionError) as error:
            raise ZeroVLError(
                f"{where}: no answer from {self._endpoint} ({error}); check AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, "
                "and the network"
            ) from None
        except BotoCoreError as error:
            raise ZeroVLError(f"{where}: {error}; check the AWS_ variables") from None

    def _explain(self, error: ClientError, where: str) -> ZeroVLError:
        code, message = _code(error), error.response.get("Error", {}).get("Message", "")
        if code == "NoSuchBucket":
            return ZeroVLError(
                f"{where}: there is no bucket {self._bucket!r}; create it, or correct the store's address"
            )
        if code in _REFUSED or _status(error) in (401, 403):
            credentials = self._session.get_credentials()
            origin = credentials.method if credentials else "nowhere"
            return ZeroVLError(
                f"{where}: access refused ({code}: {message}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                f"(found by: {origin}), and what the key may do in bucket {self._bucket!r}"
            )
        return ZeroVLError(f"{where}: the server answered {_status(error)} {code} ({message}); run it again")


def _bar(name: str, size: int, start: int) -> tqdm[Any]:
    return tqdm(total=size, initial=start, desc=name, unit="B", unit_scale=True, delay=2, leave=False)


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
