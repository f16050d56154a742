"""The one S3 client: addresses, one client a process, broken connections, and what each failure says to check."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from tests.support.flaky_proxy import CUT, UNAVAILABLE, FlakyProxy
from tests.support.s3 import client
from zerovl import s3
from zerovl.data.s3_shards import Outages, S3Ranges
from zerovl.errors import ZeroVLError
from zerovl.registry.stores import open_store


@pytest.fixture(autouse=True)
def _environment(clean_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between attempts tell nothing here."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.01)
    monkeypatch.setattr("zerovl.s3.time.sleep", lambda seconds: None)


@pytest.fixture
def proxy(moto_bucket: str, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyProxy]:
    """Before the server of `moto_bucket`; its faults are the test's to set."""
    made = FlakyProxy(moto_url, "GET", [])
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.close()


def test_addresses() -> None:
    assert s3.parse("s3://models") == s3.Location("models", "")
    assert s3.parse("s3://models/a/b/") == s3.Location("models", "a/b/")
    for uri in ("s3://", "s3:///prefix", "models/a", "gs://models", ""):
        with pytest.raises(ZeroVLError, match="names no bucket; write it as s3://bucket/prefix"):
            s3.parse(uri)


def test_without_boto3_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("boto3", "botocore", "botocore.config", "botocore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    message = "s3://models: .*need boto3, which is not installed; run `pip install boto3`"
    with pytest.raises(ZeroVLError, match=message):
        open_store("s3://models")
    with pytest.raises(ZeroVLError, match=message):
        S3Ranges("s3://models/shards").read("web/train/000000.tar", 0, 512)


def test_a_wrong_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(ZeroVLError, match=r"s3://models: .*no address.*; check AWS_ENDPOINT_URL"):
        s3.Bucket("models").endpoint  # noqa: B018, it makes the client


def _read_in_child(bucket: s3.Bucket, answers: Connection) -> None:
    parents = id(bucket._client)
    answers.send((b"".join(bucket.blocks("key", "in the child")), id(bucket.client) != parents))


def test_each_process_has_a_client_of_its_own(moto_bucket: str) -> None:
    client().put_object(Bucket=moto_bucket, Key="key", Body=b"value")
    bucket = s3.Bucket(moto_bucket)
    assert b"".join(bucket.blocks("key", "in the parent")) == b"value"
    ours = bucket.client
    assert bucket.client is ours
    answers, end = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_read_in_child, args=(bucket, end))
    child.start()
    assert answers.poll(60)
    assert answers.recv() == (b"value", True)
    child.join()
    assert bucket.client is ours
    copied = pickle.loads(pickle.dumps(bucket))
    assert copied._client is None
    assert b"".join(copied.blocks("key", "from a copy")) == b"value"
    bucket.close()
    assert b"".join(bucket.blocks("key", "opened again")) == b"value"


def test_all_who_speak_s3_have_the_same_settings(moto_bucket: str) -> None:
    config = s3.Bucket(moto_bucket).client.meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": s3.PATIENT.attempts}
    assert (config.connect_timeout, config.read_timeout) == (s3.PATIENT.connect_seconds, s3.PATIENT.answer_seconds)
    assert config.request_checksum_calculation == config.response_checksum_validation == "when_required"


def test_the_environment_asks_for_checksums(moto_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    assert s3.Bucket(moto_bucket).client.meta.config.request_checksum_calculation == "when_supported"
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "never")
    with pytest.raises(ZeroVLError, match=r"never.*check AWS_ENDPOINT_URL and the AWS_ variables"):
        s3.Bucket(moto_bucket).client  # noqa: B018, it makes the client


def test_a_read_goes_on_where_the_connection_broke(moto_bucket: str, proxy: FlakyProxy) -> None:
    content = os.urandom(3 << 20)
    client().put_object(Bucket=moto_bucket, Key="shards/a.tar", Body=content)
    proxy.faults = [CUT, UNAVAILABLE, CUT]
    assert b"".join(s3.Bucket(moto_bucket).blocks("shards/a.tar", "here")) == content
    assert not proxy.faults
    proxy.faults = [CUT, CUT]
    ranges = S3Ranges(f"s3://{moto_bucket}/shards")
    assert ranges.read("a.tar", 1000, 2 << 20) == content[1000 : 1000 + (2 << 20)]
    assert not proxy.faults
    assert ranges.read("a.tar", len(content) - 10, 512) == content[-10:]
    assert ranges.read("a.tar", len(content), 512) == b""
    with pytest.raises(FileNotFoundError, match=r"shards/b\.tar"):
        ranges.read("b.tar", 0, 512)
    ranges.close()


def test_a_read_that_breaks_without_progress_is_given_up(moto_bucket: str, proxy: FlakyProxy) -> None:
    client().put_object(Bucket=moto_bucket, Key="a.tar", Body=b"x")  # half of one byte is none
    proxy.faults = [CUT] * s3.PATIENT.attempts
    with pytest.raises(s3.NoAnswerError, match=r"here: the connection to http://127.0.0.1:\d+ broke .*run it again"):
        b"".join(s3.Bucket(moto_bucket).blocks("a.tar", "here"))
    assert not proxy.faults
    proxy.faults = [CUT] * s3.PATIENT.attempts
    with pytest.raises(OSError, match=r"s3://\S+/a\.tar: cannot be read: the connection"):
        S3Ranges(f"s3://{moto_bucket}", outages=Outages(seconds=0.0)).read("a.tar", 0, 1)


def _botocore_errors() -> list[tuple[Exception, type[ZeroVLError], str]]:
    from boto3.exceptions import S3UploadFailedError
    from botocore import exceptions as its

    def answer(status: int, code: str) -> its.ClientError:
        response = {"Error": {"Code": code, "Message": "its words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return its.ClientError(response, "GetObject")

    gone = "no answer from http://127.0.0.1:9 .*; check AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, and the network"
    return [
        (answer(404, "NoSuchBucket"), s3.AnswerError, "there is no bucket 'models' at http.*; create it, or correct"),
        (answer(403, "AccessDenied"), s3.AnswerError, r"access refused \(AccessDenied: its words\); .*found by: env"),
        (answer(400, "ExpiredToken"), s3.AnswerError, r"access refused .*what the key may do in bucket 'models'"),
        (answer(503, "SlowDown"), s3.AnswerError, r"the server answered 503 SlowDown \(its words\); run it again"),
        (its.NoCredentialsError(), ZeroVLError, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (its.SSLError(endpoint_url="u", error="self-signed"), ZeroVLError, "self-signed.*AWS_CA_BUNDLE"),
        (its.EndpointConnectionError(endpoint_url="u"), s3.NoAnswerError, gone),
        (its.ConnectTimeoutError(endpoint_url="u"), s3.NoAnswerError, gone),
        (its.ReadTimeoutError(endpoint_url="u"), s3.NoAnswerError, gone),
        (its.ConnectionClosedError(endpoint_url="u"), s3.NoAnswerError, gone),
        (its.ProxyConnectionError(proxy_url="u"), s3.NoAnswerError, gone),
        (its.ResponseStreamingError(error="cut off"), s3.NoAnswerError, "broke .*cut off.*check the network and run"),
        (its.ProfileNotFound(profile="work"), ZeroVLError, "profile.*work.*; check the AWS_ variables"),
        (S3UploadFailedError("all attempts"), ZeroVLError, "all attempts; check the AWS_ variables"),
    ]


@pytest.mark.parametrize(("error", "kind", "message"), _botocore_errors(), ids=lambda value: type(value).__name__)
def test_each_failure_says_what_to_check(
    error: Exception, kind: type[ZeroVLError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    bucket = s3.Bucket("models")
    assert bucket.client
    with (
        pytest.raises(kind, match=f"s3://models: cannot read it: .*{message}") as told,
        bucket.explained("s3://models: cannot read it"),
    ):
        raise error
    assert type(told.value) is kind


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), s3.Bucket("models").explained("here"):
        raise KeyError("not of S3")
