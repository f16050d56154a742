"""How many samples a tar should have by a file beside it: the same of tars on this machine and on a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import s3
from zerovl.data.stated_samples import Stated, samples_stated_beside, stated_beside
from zerovl.errors import ZeroVLError
from zerovl.s3 import AnswerError, Bucket

STATS, INDEX = "00000_stats.json", "00000.idx"


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({}, None),
        ({STATS: b'{"count": 25, "successes": 20}'}, 20),
        ({STATS: b'{"successes": 20, "status_dict": {"HTTP Error": "%s"}}' % (b"x" * 100_000)}, 20),
        ({INDEX: b"v1.2 21\njpg 0 512 0.jpg\n"}, 21),
        ({STATS: b'{"successes": 20}', INDEX: b"v1.2 21\n"}, 20),
        ({STATS: b"{", INDEX: b"v1.2 21\n"}, 21),
        ({STATS: b""}, None),
        ({STATS: b'{"successes": -1}'}, None),
        ({STATS: b'{"successes": true}'}, None),
        ({STATS: b'{"successes": "20"}'}, None),
        ({STATS: b"[" * 100_000}, None),
        ({INDEX: b""}, None),
        ({INDEX: b"SQLite format 3\0"}, None),
        ({INDEX: b"v1.2 -3\n"}, None),
        ({INDEX: b"v1.2 \xb2\n"}, None),
        ({INDEX: b"v1.2 7\n" + b"x" * 100_000}, 7),
    ],
)
def test_what_lies_beside_a_tar(
    beside: dict[str, bytes], expected: int | None, tmp_path: Path, moto_bucket: str
) -> None:
    for name, content in beside.items():
        (tmp_path / name).write_bytes(content)
        s3.client().put_object(Bucket=moto_bucket, Key=f"web/{name}", Body=content)
    assert samples_stated_beside(f"{tmp_path}/00000.tar") == expected
    assert samples_stated_beside(f"s3://{moto_bucket}/web/00000.tar") == expected
    assert samples_stated_beside(f"{tmp_path}/00000.tar.gz") is None


def test_the_file_that_says_so_is_named(tmp_path: Path, moto_bucket: str) -> None:
    s3.client().put_object(Bucket=moto_bucket, Key=f"web/{STATS}", Body=b'{"successes": 20}')
    (tmp_path / INDEX).write_bytes(b"v1.2 21\n")
    (tmp_path / STATS).write_bytes(b"{")
    assert stated_beside(f"s3://{moto_bucket}/web/00000.tar") == Stated(20, STATS)
    assert stated_beside(f"{tmp_path}/00000.tar") == Stated(21, INDEX)


def test_who_may_not_list_a_bucket_is_refused_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise AnswerError("access refused", 403, "AccessDenied")

    monkeypatch.setattr(Bucket, "blocks", refuse)
    assert samples_stated_beside("s3://read-only/00000.tar") is None


def test_a_store_without_the_bucket_is_named(moto_url: str, clean_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    with pytest.raises(ZeroVLError, match=r"s3://nowhere/0_stats\.json: cannot be read: there is no bucket 'nowhere'"):
        samples_stated_beside("s3://nowhere/0.tar")
