"""Whole files to S3 and back, large ones in parts over several connections (see `zerovl.s3` for endpoint and keys).

The server compares each body with its MD5, which every server of the protocol knows, other than newer checksums.
Threads are daemons, other than those of a pool: a process that is told to end must not wait for a server.
"""

from __future__ import annotations

import base64
import hashlib
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zerovl import s3
from zerovl.errors import ZeroVLError

PART_BYTES = 16 << 20  # larger files go up in parts of this size
CONNECTIONS = 4  # parts on their way at once
_MAX_PARTS = 10_000  # limit of S3

Told = Callable[[int], object]  # hears of bytes that have arrived, in any thread; what it raises ends the transfer


def in_threads(run: Callable[[int], None], starts: range, most: int) -> None:
    """Call `run` for each start in up to `most` threads; raises the first error, after all have ended."""
    open_: queue.SimpleQueue[int] = queue.SimpleQueue()
    errors: list[BaseException] = []
    for start in starts:
        open_.put(start)

    def work() -> None:
        while not errors:
            try:
                run(open_.get_nowait())
            except queue.Empty:
                return
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(most, len(starts)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as interrupt:  # of this thread alone: the others end with the part that they are at
        errors.append(interrupt)
        raise
    if errors:
        raise errors[0]


def put_bytes(bucket: s3.Bucket, key: str, body: bytes, where: str) -> None:
    """Write an object in place of what is there; `where` begins the message of an error, as for `Bucket.explained`."""
    with bucket.explained(where):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=body, ContentMD5=_md5(body))


def put_file(bucket: s3.Bucket, key: str, descriptor: int, where: str, told: Told) -> None:
    """Write an open file as an object, whole or not at all; one that was removed meanwhile goes up all the same.

    Raises `ZeroVLError`, beginning with `where`, and what `told` raises.
    """
    size = os.fstat(descriptor).st_size
    if size <= PART_BYTES:
        put_bytes(bucket, key, os.pread(descriptor, size, 0), where)
        told(size)
        return
    upload = {"Bucket": bucket.name, "Key": key}
    try:
        with bucket.explained(where):
            upload["UploadId"] = bucket.client.create_multipart_upload(**upload)["UploadId"]
            parts = send_parts(bucket, upload, descriptor, told)
            bucket.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    except BaseException:
        if "UploadId" in upload:
            with suppress(ZeroVLError), bucket.explained(where):  # the first error is the one to report
                bucket.client.abort_multipart_upload(**upload)
        raise


def send_parts(bucket: s3.Bucket, upload: dict[str, str], descriptor: int, told: Told) -> list[dict[str, Any]]:
    """Send an open file as the parts of a multipart upload; returns what completes it. Raises as boto3 does."""
    size, client = os.fstat(descriptor).st_size, bucket.client
    part_bytes = max(PART_BYTES, -(-size // _MAX_PARTS))
    parts: dict[int, str] = {}

    def send(start: int) -> None:
        body, number = os.pread(own, part_bytes, start), start // part_bytes + 1
        answer = client.upload_part(**upload, PartNumber=number, Body=body, ContentMD5=_md5(body))
        parts[number] = answer["ETag"]
        told(len(body))

    own = os.dup(descriptor)  # threads that an interrupt leaves behind must not read what is opened next by its number
    try:
        in_threads(send, range(0, size, part_bytes), CONNECTIONS)
    except Exception:  # after which no thread is left, other than after an interrupt
        os.close(own)
        raise
    os.close(own)
    return [{"PartNumber": number, "ETag": parts[number]} for number in sorted(parts)]


def get_file(bucket: s3.Bucket, key: str, path: Path, size: int, where: str, told: Told) -> None:
    """Write the first `size` bytes of an object to a new file, and sync it; the caller compares digests.

    Raises `ZeroVLError`, beginning with `where`; an `OSError` is of the disk.
    """

    def fetch(start: int) -> None:
        for block in bucket.blocks(key, where, start, min(start + PART_BYTES, size)):
            written = 0
            while written < len(block):
                written += os.pwrite(file.fileno(), block[written:], start + written)
            start += len(block)
            told(len(block))

    _ = bucket.client  # made before several threads share it
    with open(path, "xb") as file:
        in_threads(fetch, range(0, size, PART_BYTES), CONNECTIONS)
        os.fsync(file.fileno())


def try_writing(uri: str, patience: s3.Patience | None = None) -> str:
    """Write a probe below s3://bucket/prefix and remove it; returns what kept it from being removed, or nothing.

    Its name is always the same, so where it stays there is one. Raises `ZeroVLError` that says what is in the way.
    """
    place = s3.parse(uri)
    bucket = s3.Bucket(place.bucket, patience)
    key = "/".join(filter(None, (place.path.strip("/"), "probe")))
    put_bytes(bucket, key, b"probe", f"{uri}: cannot write {key}")
    try:
        with bucket.explained(f"{uri}: cannot delete {key}"):
            bucket.client.delete_object(Bucket=bucket.name, Key=key)
    except ZeroVLError as error:
        return str(error)
    return ""


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
