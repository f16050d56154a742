"""What a store last said of the releases in the cache, so that they can be used while the store is away.

    STORE/NAME@LABEL.json    {"seen": when, "version": {...}, "move": {...} of an alias, null for a number}

The store is asked first, for a few seconds at most, and one that let half of them pass without an answer is not asked
again for a minute. A version never changes, so its record is as good as the store's; an alias may have moved since,
which the log says with the time.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write
from zerovl.log import logger
from zerovl.registry import cache
from zerovl.registry.records import Move, Version, move_from, now, version_from
from zerovl.registry.registry import Registry, split_reference
from zerovl.registry.stores.base import Store, StoreAwayError
from zerovl.s3 import AnswerError, NoAnswerError

SECONDS = 4.0  # that a store is waited for where the cache has what is asked for
_LAST_SECONDS = 0.5  # of them at least behind what was done meanwhile, which may have kept the processor
_SILENT_SECONDS = 60.0  # for which a process does not ask a store again that took long to give no answer

_silent: dict[str, tuple[float, ZeroVLError]] = {}  # by store: until when, of `time.monotonic`, and what it was


class _TooLateError(StoreAwayError):
    """A store took at least half of the time that there was for it, and gave no answer."""


@dataclass(frozen=True)
class Found:
    """The version that a reference stands for."""

    reference: str  # NAME@LABEL
    version: Version
    move: Move | None  # of the alias; None for a number
    seen: str  # when the store said so: UTC, ISO 8601


def nothing() -> None:
    """Do nothing while a store is waited for."""


def find(store: Store, reference: str, meanwhile: Callable[[], object] = nothing) -> Found:
    """Return the version that NAME@LABEL names: as the store says, or as it last said where it is away.

    `meanwhile` is called while a store is waited for whose answer may not be needed. Raises `ZeroVLError` where there
    is no such release, and where the store is away and the cache does not have it.
    """
    known, place = _known(store, reference), store.describe()
    if known is None:
        found = _ask(store, reference)
        _silent.pop(place, None)  # it answers again
        return found
    until, error = _silent.get(place, (0.0, None))
    if error is None or time.monotonic() > until:
        try:
            return _within(SECONDS, lambda: _ask_hurried(store, reference), place, meanwhile)
        except ZeroVLError as why:
            if not _says_away(why):
                raise
            error = why
            if isinstance(why, _TooLateError):
                _silent[place] = (time.monotonic() + _SILENT_SECONDS, why)
    _tell(known, error)
    return known


def keep(store: Store, found: Found) -> None:
    """Keep what a store said of a version that is in the cache now; a cache that cannot be written stays as it is."""
    move = asdict(found.move) if found.move else None
    values = {"seen": found.seen, "version": asdict(found.version), "move": move}
    with suppress(OSError), atomic_write(_path(store, found.reference), "w") as file:
        json.dump(values, file)


def _ask(store: Store, reference: str) -> Found:
    registry, (name, label) = Registry(store), split_reference(reference)
    move = None if label.isdecimal() else registry.last_move(name, label)
    return Found(reference, registry.version_in_use(name, move.version if move else int(label)), move, now())


def _ask_hurried(store: Store, reference: str) -> Found:
    """As `_ask`; what refuses at once is told from what costs each of many questions seconds."""
    begun = time.monotonic()
    try:
        return _ask(store.hurried(), reference)
    except NoAnswerError as error:
        if time.monotonic() - begun < SECONDS / 2:
            raise
        raise _TooLateError(str(error)) from error


def _known(store: Store, reference: str) -> Found | None:
    """What was kept of a reference; None where that is nothing, or its files are not in the cache any more."""
    split_reference(reference)  # or it would be no name of a file
    path = _path(store, reference)
    try:
        values = json.loads(path.read_bytes())
        version = version_from(json.dumps(values["version"]).encode(), str(path))
        move = move_from(json.dumps(values["move"]).encode(), str(path)) if values["move"] else None
        found = Found(reference, version, move, str(values["seen"]))
    except (OSError, ValueError, TypeError, KeyError, ZeroVLError):
        return None  # the store is asked, with all the patience that it may need
    return found if cache.is_there(store, version) else None


def _path(store: Store, reference: str) -> Path:
    return cache.store_folder(store) / f"{reference}.json"


def _within(seconds: float, ask: Callable[[], Found], place: str, meanwhile: Callable[[], object]) -> Found:
    """Return what `ask` does, or raise `StoreAwayError`: no timeout of a client covers names and file systems too."""
    answers: list[Found] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:
            errors.append(error)

    thread, end = threading.Thread(target=run, name="ask a store", daemon=True), time.monotonic() + seconds
    thread.start()
    meanwhile()
    thread.join(max(end - time.monotonic(), min(seconds, _LAST_SECONDS)))
    if errors:
        raise errors[0]
    if not answers:
        raise _TooLateError(f"{place}: no answer for {seconds:g} s")
    return answers[0]


def _says_away(error: ZeroVLError) -> bool:
    return isinstance(error, StoreAwayError | NoAnswerError) or (isinstance(error, AnswerError) and error.status >= 500)


def _tell(known: Found, error: ZeroVLError) -> None:
    if known.move is None:
        logger().info(f"{known.reference}: from the cache, its store cannot be asked: {error}")
        return
    logger().warning(
        f"{known.reference} is taken for {known.version.reference}, as it was when last seen, {known.seen[:19]} UTC; "
        f"it may have moved since, its store cannot be asked: {error}"
    )
