"""A server that answers 500 and 503, late, half or not at all: requests are repeated, and nothing is done twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.flaky_proxy import CUT, DROP, HANG, INTERNAL, LOST, UNAVAILABLE, FlakyProxy
from tests.support.registries import Bundle, promote
from zerovl import s3
from zerovl.errors import ZeroVLError
from zerovl.registry import transfer
from zerovl.registry.registry import Registry
from zerovl.registry.stores.s3 import S3Store

Through = Callable[[str, list[str]], FlakyProxy]


@pytest.fixture
def through(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Through]:
    """Puts a flaky proxy before the server, for stores that are opened from then on."""
    opened: list[FlakyProxy] = []

    def open_proxy(method: str, faults: list[str]) -> FlakyProxy:
        opened.append(FlakyProxy(moto_url, method, faults))
        monkeypatch.setenv("AWS_ENDPOINT_URL", opened[-1].url)
        return opened[-1]

    # The pauses between attempts are botocore's; seconds of them would tell nothing here.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.01)
    monkeypatch.setattr(s3, "PATIENT", replace(s3.PATIENT, answer_seconds=1))
    yield open_proxy
    for proxy in opened:
        proxy.close()


FAULTS = [UNAVAILABLE, INTERNAL, DROP, HANG, UNAVAILABLE]


def test_writes_are_repeated(moto_bucket: str, through: Through) -> None:
    proxy = through("PUT", FAULTS)
    assert S3Store(moto_bucket).create("key", b"value")
    assert not proxy.faults
    assert S3Store(moto_bucket).read("key") == b"value"


def test_reads_and_listings_are_repeated(moto_bucket: str, through: Through, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    S3Store(moto_bucket).create("folder/key", content)
    proxy = through("GET", FAULTS)
    assert S3Store(moto_bucket).keys("folder/") == ["folder/key"]
    assert not proxy.faults
    proxy = through("GET", [CUT, UNAVAILABLE, CUT, DROP])
    assert S3Store(moto_bucket).read("folder/key") == content
    assert not proxy.faults
    proxy = through("GET", [CUT, CUT])
    S3Store(moto_bucket).download("folder/key", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    proxy = through("HEAD", FAULTS)
    assert S3Store(moto_bucket).exists("folder/key")
    assert not proxy.faults


def test_parts_of_a_large_file_are_repeated(moto_bucket: str, through: Through, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(33 << 20))
    proxy = through("PUT", FAULTS)
    assert S3Store(moto_bucket).create("large", tmp_path / "large")
    assert not proxy.faults
    proxy = through("POST", [UNAVAILABLE, "", LOST, DROP])  # the start, and the completion that was done but not told
    S3Store(moto_bucket).create("again", tmp_path / "large")
    assert not proxy.faults
    S3Store(moto_bucket).download("again", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()


def test_a_server_that_stays_away_is_told(moto_bucket: str, through: Through) -> None:
    through("GET", [UNAVAILABLE] * 40)
    with pytest.raises(ZeroVLError, match=r"cannot list .*: the server answered 503 .*; run it again"):
        S3Store(moto_bucket).keys("")
    through("GET", [DROP] * 40)
    with pytest.raises(ZeroVLError, match=r"no answer from http://127.0.0.1:\d+ .*check AWS_ENDPOINT_URL"):
        S3Store(moto_bucket).keys("")


@pytest.mark.usefixtures("unchecked")
def test_a_write_whose_answer_is_lost_is_done_once(moto_bucket: str, through: Through, make_bundle: Bundle) -> None:
    """The repeated write meets its own key; it is neither a second version nor a lost move."""
    files = make_bundle("a")
    count = len(files)
    S3Store(moto_bucket).check()
    # Two writes of the probe come first; then the blobs, the version, the move: the answers of the last two get lost.
    through("PUT", [""] * (2 + count) + [LOST, LOST])
    registry = Registry(S3Store(moto_bucket))
    version = registry.publish("zerovl", files, metrics={}, provenance={}, by="tester")
    move = promote(registry, version)
    assert (version.number, registry.numbers("zerovl")) == (1, [1])
    assert registry.history("zerovl", "production") == [move]


@pytest.mark.usefixtures("unchecked")
def test_publishing_and_promoting_through_all_of_it(moto_bucket: str, through: Through, make_bundle: Bundle) -> None:
    through("PUT", [UNAVAILABLE, LOST, HANG, "", INTERNAL, DROP, "", LOST, UNAVAILABLE, LOST])
    registry = Registry(S3Store(moto_bucket))
    versions = [
        registry.publish("zerovl", make_bundle(content), metrics={}, provenance={}, by="tester") for content in "ab"
    ]
    for version in versions:
        assert promote(registry, version)
    assert [move.version for move in registry.history("zerovl", "production")] == [2, 1]
    for version in versions:
        transfer.verify(registry.store, version)
