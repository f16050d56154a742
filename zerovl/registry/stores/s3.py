"""A store in a bucket of S3 or of a server that speaks its protocol.

Creation is exclusive by conditional writes: `PutObject` and `CompleteMultipartUpload` with
`If-None-Match: *`, which answer 412 where the key exists (AWS since August 2024; MinIO, Ceph,
Cloudflare R2 and others too). A server that ignores the condition is found by a probe before the
first write, and refused unless allowed by name. Endpoint and keys: see `zerovl.s3`.

An upload that is killed leaves parts that no listing shows; a lifecycle rule of the bucket
(AbortIncompleteMultipartUpload) removes them.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from zerovl import s3, s3_files
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.registry.stores.base import MissingKeyError, check_key

ALLOW_VARIABLE = "ZEROVL_ALLOW_UNCONDITIONAL_PUT"


class S3Store:
    """Keys are objects below `prefix`. One client serves all threads of a process."""

    def __init__(self, bucket: str, prefix: str = "", patience: s3.Patience | None = None) -> None:
        self._bucket = s3.Bucket(bucket, patience)
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = self._bucket.endpoint  # a wrong one is told when the store is opened
        self._probe_lock = threading.Lock()
        self._conditional: bool | None = None  # unknown until the probe

    @property
    def uri(self) -> str:
        """What `open_store` takes to open this store again."""
        return f"{s3.PREFIX}{self._bucket.name}/{self._prefix}".rstrip("/")

    def create(self, key: str, source: Path | bytes) -> bool:
        """Write a key that does not exist yet, a large file in parts; returns False where it existed."""
        check_key(key)
        self._probe_once()
        if not self._conditional and self._size(key) is not None:
            return False
        if isinstance(source, bytes) or source.stat().st_size <= s3_files.PART_BYTES:
            body = source if isinstance(source, bytes) else source.read_bytes()
            return self._until_settled(lambda: self._put(key, body, self._condition))
        return self._until_settled(lambda: self._put_parts(key, source))

    def delete(self, key: str) -> None:
        """Remove a key; a bucket with versioning keeps what was there as an older version."""
        with self._explained(f"delete {key}"):
            self._client.delete_object(Bucket=self._bucket.name, Key=self._name(key))

    def exists(self, key: str) -> bool:
        """Return whether there is such a key."""
        return self._size(key) is not None

    def read(self, key: str) -> bytes:
        """Return all bytes of a small key; raises `MissingKeyError`."""
        return b"".join(self.blocks(key))

    def blocks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of a key block by block, across broken connections; raises `MissingKeyError`."""
        return self._blocks_from(key, 0)

    def download(self, key: str, path: Path) -> None:
        """Write a key to `path`; goes on with `.<name>.part` where an earlier download was cut off.

        Raises `MissingKeyError` where there is no such key.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.part")
        size = self._size(key)
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
        """Return all keys that begin with `prefix`, sorted."""
        found: list[str] = []
        with self._explained(f"list {prefix}"):
            for page in self._pages(prefix, ""):
                found += [item["Key"].removeprefix(self._prefix) for item in page.get("Contents", [])]
        return sorted(found)

    def folders(self, prefix: str) -> list[str]:
        """Return the names directly below `prefix` that have keys below them, sorted."""
        found: list[str] = []
        with self._explained(f"list {prefix}"):
            for page in self._pages(prefix, "/"):
                found += [item["Prefix"].rstrip("/").rpartition("/")[2] for item in page.get("CommonPrefixes", [])]
        return sorted(found)

    def check(self) -> str:
        """Write a probe twice; returns a sentence on what the server did with the second one."""
        self._probe_once()
        if self._conditional:
            return "can be written, conditional PUT is honoured"
        return f"can be written, conditional PUT is ignored (allowed by {ALLOW_VARIABLE})"

    def hurried(self) -> S3Store:
        """Return the same store by a client that waits for a few seconds at most."""
        return S3Store(self._bucket.name, self._prefix.rstrip("/"), s3.HURRIED)

    def describe(self) -> str:
        """Return address and endpoint, as messages name the store."""
        return f"{self.uri} at {self._endpoint}"

    # -- writing

    @property
    def _condition(self) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if self._conditional else {}

    @property
    def _client(self) -> Any:
        return self._bucket.client

    def _put(self, key: str, body: bytes, condition: dict[str, str]) -> bool:
        try:
            with self._explained(f"write {key}"):
                self._client.put_object(Bucket=self._bucket.name, Key=self._name(key), Body=body, **condition)
        except s3.AnswerError as error:
            if error.status == 412:
                return False
            raise
        return True

    def _put_parts(self, key: str, path: Path) -> bool:
        if self._size(key) is not None:
            return False  # spares the transfer; the condition at the end is what decides
        upload = {"Bucket": self._bucket.name, "Key": self._name(key)}
        try:
            with self._explained(f"write {key}"):
                upload["UploadId"] = self._client.create_multipart_upload(**upload)["UploadId"]
                parts = self._send_parts(upload, path)
                self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **self._condition)
        except BaseException as error:
            if "UploadId" in upload:
                self._abort(upload)
            if isinstance(error, s3.AnswerError) and error.status == 412:
                return False
            # A retried completion whose first answer was lost finds its upload gone and the key there.
            if isinstance(error, s3.AnswerError) and error.code == "NoSuchUpload" and self._size(key) is not None:
                return False
            raise
        return True

    def _abort(self, upload: dict[str, str]) -> None:
        with suppress(ZeroVLError), self._explained("take an upload back"):  # the first error is the one to report
            self._client.abort_multipart_upload(**upload)

    def _send_parts(self, upload: dict[str, str], path: Path) -> list[dict[str, Any]]:
        with open(path, "rb") as file, _bar(path.name, path.stat().st_size, 0) as bar:
            return s3_files.send_parts(self._bucket, upload, file.fileno(), bar.update)

    def _until_settled(self, put: Callable[[], bool]) -> bool:
        """Repeat on 409: another write of the same key was under way, and neither has won yet."""
        for attempt in range(s3.PATIENT.attempts - 1):
            try:
                return put()
            except s3.AnswerError as error:
                if error.status != 409:
                    raise
                time.sleep(0.1 * 2**attempt)
        return put()

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
                logger().warning(
                    f"{self.describe()} ignores conditional PUT; allowed by {ALLOW_VARIABLE}={host}, "
                    "so publish from one place at a time"
                )
            self._conditional = honoured

    def _probe(self) -> bool:
        key = f"probe-{uuid.uuid4().hex}"
        condition = {"IfNoneMatch": "*"}
        try:
            # Where the first one's answer was lost, its repetition met itself, so what it says does not count.
            self._put(key, b"probe", condition)
            return not self._put(key, b"again", condition)
        except s3.AnswerError as error:
            if error.status == 501 or error.code == "NotImplemented":
                return False
            raise
        finally:
            # Without the right to delete, a probe of 5 bytes stays behind; that harms nobody.
            with suppress(ZeroVLError), self._explained("remove a probe"):
                self._client.delete_object(Bucket=self._bucket.name, Key=self._name(key))

    # -- reading

    def _blocks_from(self, key: str, start: int) -> Iterator[bytes]:
        """The bytes of a key from `start` on."""
        try:
            yield from self._bucket.blocks(self._name(key), self._where(f"read {key}"), start)
        except s3.AnswerError as error:
            if error.is_missing_key:
                raise MissingKeyError(f"{self.describe()}: there is no {key}") from None
            raise

    def _size(self, key: str) -> int | None:
        """Bytes of a key; None where there is none."""
        try:
            with self._explained(f"look for {key}"):
                return int(self._client.head_object(Bucket=self._bucket.name, Key=self._name(key))["ContentLength"])
        except s3.AnswerError as error:
            if error.status == 404:
                return None
            raise

    def _pages(self, prefix: str, delimiter: str) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator("list_objects_v2")
        yield from paginator.paginate(Bucket=self._bucket.name, Prefix=self._prefix + prefix, Delimiter=delimiter)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _where(self, action: str) -> str:
        return f"{self.describe()}: cannot {action}"

    def _explained(self, action: str) -> AbstractContextManager[None]:
        return self._bucket.explained(self._where(action))


def _bar(name: str, size: int, start: int) -> tqdm[Any]:
    return tqdm(total=size, initial=start, desc=name, unit="B", unit_scale=True, delay=2, leave=False)
