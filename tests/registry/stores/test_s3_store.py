from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ResponseStreamingError

from tests.support.s3 import client
from zerovl import s3
from zerovl.commands.params_checks import check_store
from zerovl.errors import ZeroVLError
from zerovl.registry.stores import open_store
from zerovl.registry.stores.base import MissingKeyError
from zerovl.registry.stores.s3 import ALLOW_VARIABLE, S3Store

MIB = 1 << 20


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(MIB) * 33 + b"tail")
    return path


def test_all_keys_lie_below_the_prefix_and_the_probe_is_gone(moto_bucket: str) -> None:
    store = open_store(f"s3://{moto_bucket}/some/prefix")
    assert store.create("a/one", b"first")
    assert store.create("b/three", b"")
    names = [item["Key"] for item in client().list_objects_v2(Bucket=moto_bucket)["Contents"]]
    assert names == ["some/prefix/a/one", "some/prefix/b/three"]


def test_an_empty_key_is_downloaded(moto_bucket: str, tmp_path: Path) -> None:
    store = S3Store(moto_bucket)
    store.create("empty", b"")
    store.download("empty", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


def test_multipart_is_exclusive_whole_and_leaves_no_parts(moto_bucket: str, large_file: Path, tmp_path: Path) -> None:
    store = S3Store(moto_bucket)
    assert store.create("large", large_file)
    assert not store.create("large", large_file)
    store.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large_file.read_bytes()
    assert client().head_object(Bucket=moto_bucket, Key="large")["ETag"].strip('"').endswith("-3")
    assert not client().list_multipart_uploads(Bucket=moto_bucket).get("Uploads")


def test_multipart_that_loses_the_race_at_the_end_is_told_so(
    moto_bucket: str, large_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(moto_bucket)
    send = S3Store._send_parts

    def overtaken(self: S3Store, upload: dict[str, str], path: Path) -> object:
        parts = send(self, upload, path)
        client().put_object(Bucket=moto_bucket, Key="large", Body=b"the winner's")
        return parts

    monkeypatch.setattr(S3Store, "_send_parts", overtaken)
    assert not store.create("large", large_file)
    assert store.read("large") == b"the winner's"
    assert not client().list_multipart_uploads(Bucket=moto_bucket).get("Uploads")


def test_multipart_that_fails_is_aborted(moto_bucket: str, large_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(moto_bucket)
    upload_part, sent = store._client.upload_part, threading.Event()

    def broken(**arguments: object) -> object:
        if arguments["PartNumber"] == 2:
            sent.wait(30)
            raise EndpointConnectionError(endpoint_url="http://gone")
        answer = upload_part(**arguments)
        sent.set()
        return answer

    monkeypatch.setattr(store._client, "upload_part", broken)
    with pytest.raises(ZeroVLError, match=r"no answer from .*AWS_ENDPOINT_URL"):
        store.create("large", large_file)
    assert not client().list_multipart_uploads(Bucket=moto_bucket).get("Uploads")
    assert not store.exists("large")


def test_of_many_writers_one_wins(moto_bucket: str) -> None:
    stores = [S3Store(moto_bucket) for _ in range(16)]
    with ThreadPoolExecutor(16) as executor:
        created = list(executor.map(lambda item: item[1].create("key", b"%d" % item[0]), enumerate(stores)))
    assert created.count(True) == 1
    assert stores[0].read("key") == b"%d" % created.index(True)


def test_a_conflict_is_tried_again(moto_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, answers = S3Store(moto_bucket), [409, 409]
    store.check()
    put = store._client.put_object

    def conflicting(**arguments: object) -> object:
        if answers:
            status = {"HTTPStatusCode": answers.pop()}
            raise ClientError(
                {"Error": {"Code": "ConditionalRequestConflict"}, "ResponseMetadata": status}, "PutObject"
            )
        return put(**arguments)

    monkeypatch.setattr(store._client, "put_object", conflicting)
    monkeypatch.setattr("zerovl.registry.stores.s3.time.sleep", lambda seconds: None)
    assert store.create("key", b"value")
    assert not answers


def test_a_download_goes_on_where_it_was_cut_off(
    moto_bucket: str, large_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(moto_bucket)
    store.create("large", large_file)
    (tmp_path / ".back.part").write_bytes(large_file.read_bytes()[: 20 * MIB])
    get, ranges = store._client.get_object, []

    def breaking(**arguments: object) -> object:
        """The first answer ends after 4 MiB, as a lost connection does."""
        ranges.append(arguments.get("Range"))
        answer = get(**arguments)
        if len(ranges) == 1:
            blocks = answer["Body"].iter_chunks

            def short(size: int) -> Iterator[bytes]:
                for number, block in enumerate(blocks(size)):
                    if number == 4:
                        raise ResponseStreamingError(error="connection lost")
                    yield block

            monkeypatch.setattr(answer["Body"], "iter_chunks", short)
        return answer

    monkeypatch.setattr(store._client, "get_object", breaking)
    store.download("large", tmp_path / "back")
    assert ranges == [f"bytes={20 * MIB}-", f"bytes={24 * MIB}-"]
    assert (tmp_path / "back").read_bytes() == large_file.read_bytes()
    assert not (tmp_path / ".back.part").exists()


def test_an_endpoint_without_conditional_put_is_refused_by_name(
    rclone_bucket: str, rclone_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = urlsplit(rclone_url).netloc
    with pytest.raises(ZeroVLError, match=f"{host}.* ignores conditional PUT .*{ALLOW_VARIABLE}={host}"):
        S3Store(rclone_bucket).create("key", b"value")
    monkeypatch.setenv(ALLOW_VARIABLE, "other.host:9000")
    with pytest.raises(ZeroVLError, match="ignores conditional PUT"):
        S3Store(rclone_bucket).create("key", b"value")
    assert S3Store(rclone_bucket).keys("") == []


def test_an_endpoint_without_conditional_put_is_allowed_by_name(
    rclone_bucket: str,
    rclone_url: str,
    large_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, urlsplit(rclone_url).netloc)
    store = S3Store(rclone_bucket)
    assert store.create("key", b"value")
    assert not store.create("key", b"other")
    assert store.create("large", large_file)
    assert not store.create("large", b"other")
    assert store.read("key") == b"value"
    assert store.read("large") == large_file.read_bytes()
    told = caplog.text or capsys.readouterr().err  # a command may have set up the log before
    assert told.count("ignores conditional PUT") == 1


@pytest.mark.parametrize(
    ("key", "secret", "code"),
    [("tester", "wrong", "SignatureDoesNotMatch"), ("nobody", "wrong", "InvalidAccessKeyId")],
)
def test_wrong_credentials_say_which_variables(
    rclone_bucket: str, key: str, secret: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    store = S3Store(rclone_bucket)
    message = f"{code}.*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY .found by: env"
    with pytest.raises(ZeroVLError, match=message):
        store.create("key", b"value")
    with pytest.raises(ZeroVLError, match=message):
        store.keys("")
    with pytest.raises(ZeroVLError, match=message):
        store.read("key")
    with pytest.raises(ZeroVLError, match="access refused"):
        store.exists("key")


def test_missing_things_are_named(moto_bucket: str, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingKeyError, match="there is no nothing"):
        S3Store(moto_bucket).read("nothing")
    with pytest.raises(MissingKeyError, match="there is no nothing"):
        S3Store(moto_bucket).download("nothing", Path("never-written"))
    with pytest.raises(ZeroVLError, match="there is no bucket 'no-such-bucket'"):
        S3Store("no-such-bucket").keys("")
    with pytest.raises(ZeroVLError, match=f"{moto_url}.*there is no bucket 'no-such-bucket'"):
        S3Store("no-such-bucket").create("key", b"value")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ZeroVLError, match="set AWS_ACCESS_KEY_ID"):
        S3Store(moto_bucket).keys("")


def test_an_unreachable_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PATIENT", replace(s3.PATIENT, attempts=1))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ZeroVLError, match=r"no answer from http://127.0.0.1:9.*AWS_ENDPOINT_URL"):
        S3Store("bucket").create("key", b"value")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(ZeroVLError, match=r"no address.*AWS_ENDPOINT_URL"):
        S3Store("bucket")


def test_doctor_looks_at_the_store(moto_bucket: str, rclone_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = next(check_store(f"s3://{moto_bucket}"))
    assert (finding.level, "conditional PUT is honoured" in finding.text) == ("ok", True)
    assert next(check_store("s3://no-such-bucket")).level == "FAIL"
    monkeypatch.setenv("AWS_ENDPOINT_URL", rclone_url)
    client().create_bucket(Bucket="doctor")
    assert next(check_store("s3://doctor")).level == "FAIL"
    monkeypatch.setenv(ALLOW_VARIABLE, urlsplit(rclone_url).netloc)
    assert next(check_store("s3://doctor")).level == "note"
