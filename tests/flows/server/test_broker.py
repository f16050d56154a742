"""What Prefect's server does with an event that its database refuses."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from threading import Thread

import pytest
from prefect.server.utilities.messaging import BrokerModule, Message, create_cache, create_consumer, create_publisher
from prefect.server.utilities.messaging.memory import Topic
from prefect.settings import PREFECT_HOME, PREFECT_SERVER_EVENTS_MESSAGING_BROKER, temporary_settings

from flows import SERVER_SETTINGS
from flows.server import broker

NAME = SERVER_SETTINGS["PREFECT_SERVER_EVENTS_MESSAGING_BROKER"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with temporary_settings({PREFECT_SERVER_EVENTS_MESSAGING_BROKER: NAME, PREFECT_HOME: tmp_path}):
        yield tmp_path


def handled(
    messages: list[bytes], refuse: Callable[[bytes, int], bool], done: Callable[[list[bytes]], bool]
) -> list[bytes]:
    """Return what a consumer's handler was given, until `done`; it refuses by message and number of the try."""
    given: list[bytes] = []

    async def handle(message: Message) -> None:
        data = bytes(message.data) if isinstance(message.data, bytes) else message.data.encode()
        given.append(data)
        if refuse(data, given.count(data)):
            raise OSError("database is locked")

    async def consume() -> None:
        consumer = create_consumer("test-of-the-broker")
        running = asyncio.create_task(consumer.run(handle))
        publisher = create_publisher("test-of-the-broker", create_cache())
        for message in messages:
            await publisher.publish_data(message, {})
        async with asyncio.timeout(60):
            while not done(given):
                await asyncio.sleep(0.005)
        await cancelled(running)
        await consumer.cleanup()

    # In a thread of its own, with this one's settings: a browser of another test may keep an event loop in this one.
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(consume())
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=copy_context().run, args=(run,))
    thread.start()
    thread.join()
    assert not failures
    assert not Topic.by_name("test-of-the-broker")._subscriptions
    return given


async def cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_prefect_takes_it_for_a_broker() -> None:
    assert isinstance(import_module(NAME), BrokerModule)


def test_what_is_refused_comes_again_and_holds_nothing_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of a consumer's workers meet the refused one more often than Prefect itself would try it."""
    monkeypatch.setattr(broker, "PAUSES", (1.0, 0.01, 0.01, 0.01, 0.01, 0.01))
    given = handled(
        [b"locked", b"also locked", b"free"],
        refuse=lambda data, count: b"locked" in data and count <= 5,
        done=lambda given: given.count(b"locked") == given.count(b"also locked") == 6,
    )
    assert given[:3] == [b"locked", b"also locked", b"free"]
    assert given.count(b"free") == 1
    assert not (home / "dlq").exists()


def test_what_is_always_refused_is_given_up_into_a_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "PAUSES", (0.01, 0.02))
    given_up = home / "dlq"
    given = handled(
        [b"never"], refuse=lambda data, count: True, done=lambda given: given_up.exists() and any(given_up.iterdir())
    )
    assert given == [b"never"] * 3
    (letter,) = given_up.iterdir()
    assert "never" in letter.read_text()
