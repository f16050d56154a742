"""The store is away: what is in the cache is used as it was last seen, and nothing else is made up."""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.registries import Bundle, publish
from tests.support.s3 import moto, new_bucket
from zerovl.errors import ZeroVLError
from zerovl.registry import cache, fetch, last_seen
from zerovl.registry.records import Move, now
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.registry.stores.base import Store, StoreAwayError


def move(registry: Registry, number: int, version: int) -> None:
    assert registry.append(Move("zerovl", "production", number, "promote", version, now(), "tester", "", None))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


@pytest.fixture(autouse=True)
def _seen_by_caplog(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command may have set up the log before, which is then no concern of the root logger's."""
    monkeypatch.setattr(logging.getLogger("zerovl"), "propagate", True)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between attempts are botocore's; seconds of them would tell nothing here."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.01)


@pytest.fixture(autouse=True)
def _nobody_was_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_seen, "_silent", {})


@pytest.fixture
def store(tmp_path: Path, make_bundle: Bundle) -> Path:
    """A folder with one release, which is in the cache by number and alias, and one that is not."""
    folder = tmp_path / "store"
    registry = Registry(open_store(str(folder)))
    for content in "ab":
        publish(registry, make_bundle(content))
    move(registry, 1, version=1)
    for label in ("1", "production"):
        fetch.resolve(f"{folder}/zerovl@{label}")
    return folder


def test_a_server_that_was_stopped_or_does_not_answer(
    clean_aws: None, make_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with moto() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        store = f"s3://{new_bucket()}/team"
        registry = Registry(open_store(store))
        for content in "ab":
            publish(registry, make_bundle(content))
        move(registry, 1, version=1)
        folder = fetch.resolve(f"{store}/zerovl@1")
        assert fetch.resolve(f"{store}/zerovl@production") == folder
    monkeypatch.setattr(last_seen, "SECONDS", 120.0)  # refused at once, but a busy machine may take long to ask
    assert fetch.resolve(f"{store}/zerovl@1") == folder
    assert warnings(caplog) == []
    assert fetch.resolve(f"{store}/zerovl@production") == folder
    (said,) = warnings(caplog)
    assert said.startswith("zerovl@production is taken for zerovl@1, as it was when last seen, 20")
    assert "no answer from http://127.0.0.1" in said
    for label in ("2", "staging"):
        with pytest.raises(ZeroVLError, match="no answer from"):
            fetch.resolve(f"{store}/zerovl@{label}")

    assert last_seen._silent == {}  # who refuses at once may be asked again at once
    monkeypatch.setattr(last_seen, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", int(urlsplit(url).port or 0))):  # takes connections, and says nothing
        assert fetch.resolve(f"{store}/zerovl@production") == folder
    assert "no answer for 0.2 s" in warnings(caplog)[0]


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_folder_that_is_gone(store: Path, left: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = fetch.resolve(f"{store}/zerovl@1")
    aside = store.rename(store.with_name("unmounted"))
    if left != "nothing":
        store.mkdir()
    for label in ("1", "production"):
        fetch.check_reference(f"{store}/zerovl@{label}")
        assert fetch.resolve(f"{store}/zerovl@{label}") == folder
    assert [said.partition(",")[0] for said in warnings(caplog)] == ["zerovl@production is taken for zerovl@1"] * 2
    with pytest.raises(ZeroVLError, match="there is no zerovl@2"):
        fetch.resolve(f"{store}/zerovl@2")
    with pytest.raises(StoreAwayError, match="is it mounted"):
        open_store(str(store)).hurried()

    if left != "nothing":
        store.rmdir()
    aside.rename(store)
    move(Registry(open_store(str(store))), 2, version=2)
    moved = fetch.resolve(f"{store}/zerovl@production")
    assert (moved / "model.safetensors").read_bytes() == b"b" * 5000
    store.rename(aside)
    assert fetch.resolve(f"{store}/zerovl@production") == moved
    assert "is taken for zerovl@2, as it was when last seen" in warnings(caplog)[0]


def test_a_store_that_answers_is_believed(store: Path, make_bundle: Bundle) -> None:
    """What it does not have any more is not taken from the cache."""
    shutil.rmtree(store)
    publish(Registry(open_store(str(store))), make_bundle("c"))
    assert (fetch.resolve(f"{store}/zerovl@1") / "model.safetensors").read_bytes() == b"c" * 5000
    with pytest.raises(ZeroVLError, match="there is no zerovl@production"):
        fetch.resolve(f"{store}/zerovl@production")
    place = open_store(str(store)).describe()
    last_seen._silent[place] = time.monotonic() + 60, ZeroVLError("no answer")
    publish(Registry(open_store(str(store))), make_bundle("d"))
    fetch.resolve(f"{store}/zerovl@2")  # is not in the cache, so the store is asked all the same
    assert last_seen._silent == {}


@pytest.mark.parametrize("harm", ["cut", "other JSON", "removed from the cache"])
def test_what_was_kept_and_does_not_fit_is_nothing(store: Path, harm: str) -> None:
    place = cache.store_folder(open_store(str(store))) / "zerovl@1.json"
    if harm == "removed from the cache":
        shutil.rmtree(fetch.resolve(f"{store}/zerovl@1"))
    else:
        place.write_text(place.read_text()[:-5] if harm == "cut" else '{"seen": 3}')
    aside = store.rename(store.with_name("unmounted"))
    with pytest.raises(ZeroVLError, match="there is no zerovl@1"):
        fetch.resolve(f"{store}/zerovl@1")
    aside.rename(store)
    folder = fetch.resolve(f"{store}/zerovl@1")
    store.rename(aside)
    assert fetch.resolve(f"{store}/zerovl@1") == folder


class Silent:
    """Stands for what asks a store, and gets no answer before `end`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.end = threading.Event()

    def first(self, count: int) -> list[str]:
        """Return what it was asked, when there are so many questions; a busy machine starts their threads late."""
        deadline = time.monotonic() + 60
        while len(self.asked) < count:
            assert time.monotonic() < deadline, self.asked
            time.sleep(0.01)
        return self.asked

    def __call__(self, store: Store, reference: str) -> last_seen.Found:
        self.asked.append(reference)
        self.end.wait(60)
        raise ZeroVLError("too late for anyone")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    """A store that takes questions and does not answer."""
    found = Silent()
    monkeypatch.setattr(last_seen, "SECONDS", 0.05)
    yield found
    found.end.set()


def test_a_store_that_does_not_answer_is_asked_once(
    store: Path, silent: Silent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A command checks a reference before it imports torch, and opens it then: one wait for all of a store."""
    monkeypatch.setattr(last_seen, "_ask", silent)
    fetch.check_reference(f"{store}/zerovl@production")
    folder = fetch.resolve(f"{store}/zerovl@production")
    assert fetch.resolve(f"{store}/zerovl@1") == folder
    assert silent.first(1) == ["zerovl@production"]
    assert ["no answer for 0.05 s" in said for said in warnings(caplog)] == [True, True]
    monkeypatch.setattr(last_seen, "_SILENT_SECONDS", -1.0)
    last_seen._silent.clear()
    for _ in range(2):  # the time is over at once, so it is asked again
        assert fetch.resolve(f"{store}/zerovl@1") == folder
    assert silent.first(3) == ["zerovl@production", "zerovl@1", "zerovl@1"]


def test_what_is_done_meanwhile_begins_before_the_answer_and_only_where_a_release_is_there(
    store: Path, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    with fetch.opened(f"{store}/zerovl@2", meanwhile=lambda: done.append("loaded")) as folder:
        assert folder.is_dir()  # it was not in the cache, so nobody knew whether there is such a release
    assert done == []
    monkeypatch.setattr(last_seen, "SECONDS", 60.0)
    monkeypatch.setattr(last_seen, "_ask", silent)

    def meanwhile() -> None:
        done.append("loaded")
        silent.end.set()  # now it answers

    with pytest.raises(ZeroVLError, match="too late"), fetch.opened(f"{store}/zerovl@1", meanwhile):
        pass
    assert done == ["loaded"]
