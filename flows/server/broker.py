"""Messages between the parts of Prefect's server, in its memory: what a locked SQLite refuses is tried again later.

Prefect's own (`prefect.server.utilities.messaging.memory`) tries a message four times within a tenth of a second and
then gives it up, into `PREFECT_HOME/dlq`, and with it a notice or the run that it was to start. `SERVER_SETTINGS` of
`flows` names this module to the server.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect.server.utilities.messaging import memory
from prefect.server.utilities.messaging.memory import (
    MemoryMessage,
    Publisher,
    Subscription,
    Topic,
    break_topic,
    ephemeral_subscription,
)

__all__ = ["Consumer", "Publisher", "break_topic", "ephemeral_subscription"]  # what Prefect asks of a broker

# Seconds before each further try, 44 in all: much longer than others were seen to keep SQLite's lock.
PAUSES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Consumer(memory.Consumer):
    """Prefect's, but for how long it goes on with a message that its handler refuses."""

    def __init__(
        self, topic: str, subscription: Subscription | None = None, concurrency: int = 2, **settings: Any
    ) -> None:
        super().__init__(topic, subscription or _subscribe(Topic.by_name(topic)), concurrency, **settings)


class _PatientSubscription(Subscription):
    """Gives a message that was refused again after a pause, in which others are handled."""

    def __init__(self, topic: Topic) -> None:
        super().__init__(topic, max_retries=len(PAUSES))
        self._pausing: set[asyncio.Task[None]] = set()  # an event loop keeps no task alive

    async def retry(self, message: MemoryMessage) -> None:
        if message.retry_count >= self.max_retries:
            await super().retry(message)  # gives it up
            return
        pausing = asyncio.create_task(self._again(message, PAUSES[message.retry_count]))
        self._pausing.add(pausing)
        pausing.add_done_callback(self._pausing.discard)
        message.retry_count += 1

    async def _again(self, message: MemoryMessage, pause: float) -> None:
        await asyncio.sleep(pause)
        # Not into the queue of retries: who waits for a message looks there before it waits, and not again.
        await self._queue.put(message)


def _subscribe(topic: Topic) -> Subscription:
    subscription = _PatientSubscription(topic)
    topic._subscriptions.append(subscription)
    return subscription
