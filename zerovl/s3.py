"""S3, or a server that speaks its protocol: one client, one parser of addresses, one explanation of what fails.

Releases (`registry.stores.s3`), shards (`data.s3_shards`) and raw data (`data.raw.s3_source`) all reach S3 through
`Bucket`; no other module imports boto3, and this one does only when a bucket is used: a bare GPU node has none.

The environment sets endpoint and keys as for any AWS client: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_PROFILE. Headers of checksums are sent and asked for where S3
requires them, unless AWS_REQUEST_CHECKSUM_CALCULATION or AWS_RESPONSE_CHECKSUM_VALIDATION says `when_supported`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from zerovl.errors import ZeroVLError

PREFIX = "s3://"
BLOCK = 1 << 20  # bytes that are read at once

_CONNECTIONS = 10  # kept open at most; one for each thread of a download

# What is kept on S3 has digests of its own, and many servers refuse the newer headers of checksums.
_CHECKSUMS = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}

_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_NO_BUCKET = "NoSuchBucket"
_MISSING = ("NoSuchKey", "404")
_PAST_THE_END = ("InvalidRange", "416")


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

    attempts: int  # of a request that ends in 500, 503, a timeout or a broken connection
    connect_seconds: float
    answer_seconds: float


PATIENT = Patience(attempts=6, connect_seconds=10, answer_seconds=60)
HURRIED = Patience(attempts=2, connect_seconds=1.5, answer_seconds=2.5)  # where what is asked for is at hand too


def _is_denied(status: int, code: str) -> bool:
    """Whether an answer says that the key is not taken, or may not do what was asked for."""
    return code in _DENIED or status in (401, 403)


class AnswerError(ZeroVLError):
    """The server answered a request with an error, after all attempts."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status  # of HTTP
        self.code = code  # of S3, as "NoSuchKey"

    @property
    def is_missing_key(self) -> bool:
        """Whether there is no such object; the bucket is there."""
        return self.code in _MISSING

    @property
    def is_refusal(self) -> bool:
        """Whether there is no such bucket, or access to it is refused: asking again changes neither."""
        return self.code == _NO_BUCKET or _is_denied(self.status, self.code)

    @property
    def is_past_the_end(self) -> bool:
        """Whether the asked range begins behind the object's last byte."""
        return self.code in _PAST_THE_END


class NoAnswerError(ZeroVLError):
    """The server gave no answer or half of one, after all attempts."""


@dataclass(frozen=True)
class Location:
    """A place in a bucket: `s3://bucket/path`, the path as it is written."""

    bucket: str
    path: str


def parse(uri: str) -> Location:
    """Return bucket and path of `s3://bucket/path`; raises `ZeroVLError` where no bucket is named."""
    bucket, _, path = uri.removeprefix(PREFIX).partition("/")
    if not uri.startswith(PREFIX) or not bucket:
        raise ZeroVLError(f"{uri!r} names no bucket; write it as s3://bucket/prefix")
    return Location(bucket, path)


def checksum_variables() -> dict[str, str]:
    """Return the variables by which other clients of S3, above all DVC's, send checksums as `Bucket` does.

    What the environment says is kept. A `dvc` that is typed by hand reads the same in `.dvc/s3.conf`.
    """
    return {name: os.environ.get(name) or value for name, value in _CHECKSUMS.items()}


class Bucket:
    """A bucket, with the client that all threads of a process share.

    A connection must not be used on both sides of a fork, so each process makes its own client. It can be pickled.
    """

    def __init__(self, name: str, patience: Patience | None = None, connections: int = _CONNECTIONS) -> None:
        self.name = name
        self._patience = patience or PATIENT
        self._connections = connections  # kept open at most
        self._session: Any = None
        self._client: Any = None
        self._owner = 0  # the process that made the client

    @property
    def client(self) -> Any:
        """The boto3 client of this process, made when it is first asked for."""
        if self._client is None or self._owner != os.getpid():
            self._session, self._client = _make_client(self.name, self._patience, self._connections)
            self._owner = os.getpid()
        return self._client

    @property
    def endpoint(self) -> str:
        """The server's address."""
        return str(self.client.meta.endpoint_url)

    def close(self) -> None:
        """Close the connections of this process; the next use opens them again."""
        if self._client is not None and self._owner == os.getpid():
            self._client.close()
        self._client = None

    def blocks(self, key: str, where: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes [start, end) of an object; goes on where a connection broke.

        Args:
            key: the object's whole name.
            where: what the message of an error begins with, as for `explained`.
            start, end: in bytes; without `end` all that follow.

        Raises:
            AnswerError: there is no such object, or the server refuses it.
            NoAnswerError: the connection broke in all attempts in a row, and no bytes came in between.
        """
        failures = 0
        while True:
            before = start
            arguments = {"Bucket": self.name, "Key": key}
            if start or end is not None:
                arguments["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
            with self.explained(where):
                answer = self.client.get_object(**arguments)
            stop = start + int(answer["ContentLength"])
            try:
                with self.explained(where):
                    for block in answer["Body"].iter_chunks(BLOCK):
                        start += len(block)
                        yield block
            except NoAnswerError:
                failures = 0 if start > before else failures + 1
                if failures == self._patience.attempts:
                    raise
                time.sleep(0.2 * 2**failures)
            if start >= stop:
                return

    @contextmanager
    def explained(self, where: str) -> Iterator[None]:
        """Turn what boto3 raises into `AnswerError`, `NoAnswerError` or `ZeroVLError`, each saying what to check.

        `where` is what the message begins with, as in "s3://models: cannot read zerovl/versions/1.json".
        """
        _require_boto3(self.name)
        from boto3.exceptions import Boto3Error
        from botocore import exceptions as its

        silent = (
            *(its.EndpointConnectionError, its.ConnectTimeoutError, its.ConnectionClosedError),
            *(its.ReadTimeoutError, its.ProxyConnectionError),
        )
        try:
            yield
        except its.ClientError as error:
            raise self._answered(error, where) from error
        except (its.NoCredentialsError, its.PartialCredentialsError) as error:
            raise ZeroVLError(f"{where}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
        except its.SSLError as error:
            raise ZeroVLError(
                f"{where}: {error}; check the scheme of AWS_ENDPOINT_URL, or name its CA by AWS_CA_BUNDLE"
            ) from None
        except silent as error:
            raise NoAnswerError(
                f"{where}: no answer from {self.endpoint} ({error}); check AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, "
                "and the network"
            ) from None
        except (its.IncompleteReadError, its.ResponseStreamingError) as error:
            raise NoAnswerError(
                f"{where}: the connection to {self.endpoint} broke ({error}); check the network and run it again"
            ) from None
        except (its.BotoCoreError, Boto3Error) as error:
            raise ZeroVLError(f"{where}: {error}; check the AWS_ variables") from None

    def _answered(self, error: Any, where: str) -> AnswerError:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(error.response.get("Error", {}).get("Code", ""))
        message = error.response.get("Error", {}).get("Message", "")
        if code == _NO_BUCKET:
            text = (
                f"there is no bucket {self.name!r} at {self.endpoint} (NoSuchBucket); create it, or correct the "
                "address or AWS_ENDPOINT_URL"
            )
        elif _is_denied(status, code):
            credentials = self._session.get_credentials()
            origin = credentials.method if credentials else "nowhere"
            text = (
                f"access refused ({code}: {message}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                f"(found by: {origin}), and what the key may do in bucket {self.name!r}"
            )
        else:
            text = f"the server answered {status} {code} ({message}); run it again"
        return AnswerError(f"{where}: {text}", status, code)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None, "_client": None, "_owner": 0}


def _make_client(bucket: str, patience: Patience, connections: int) -> tuple[Any, Any]:
    """A session of boto3 and its client, with the settings that all uses share."""
    _require_boto3(bucket)
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    session = boto3.session.Session()
    checksums = checksum_variables()
    config = Config(
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.answer_seconds,
        max_pool_connections=connections,
        request_checksum_calculation=checksums["AWS_REQUEST_CHECKSUM_CALCULATION"],
        response_checksum_validation=checksums["AWS_RESPONSE_CHECKSUM_VALIDATION"],
    )
    try:
        return session, session.client("s3", config=config)
    except (ValueError, BotoCoreError) as error:
        raise ZeroVLError(f"{PREFIX}{bucket}: {error}; check AWS_ENDPOINT_URL and the AWS_ variables") from None


def _require_boto3(bucket: str) -> None:
    try:
        import boto3  # noqa: F401
    except ImportError:
        raise ZeroVLError(
            f"{PREFIX}{bucket}: addresses on S3 need boto3, which is not installed; run `pip install boto3`"
        ) from None
