"""One lease a GPU: locked files in a folder of the machine, given out in the order in which they were asked for.

    DEVICE.lease     locked by the process that has the device; says who that is and since when
    NUMBER.ticket    locked by a process that waits; says who that is, and how many of which devices it wants

The folder itself is locked for the moments in which somebody looks at the others' files, or makes one.

The kernel frees a lock when the last process that holds the file ends, however it ends; a server that counts would
have to find out. Who waits is served before all who came later and would take one of the same devices, so that a run
that wants eight is not kept waiting by a stream of runs that want one. systemd-tmpfiles leaves locked files alone
(tmpfiles.d(5), "Age").
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.files import locked
from zerovl.lease_files import Entry, folder, has_locks, held_by, locked_file, rights_explained

_LEASE, _TICKET = ".lease", ".ticket"
CPU = ("cpu",)  # the devices of a machine without GPUs, where one training at a time is enough
_POLL = 1.0  # seconds
_REMIND = 600.0  # seconds after which those who wait are told again


@dataclass(frozen=True)
class Held:
    """Devices that were leased, and the descriptors that hold them: open as long as any process is to keep them."""

    devices: tuple[str, ...]
    descriptors: tuple[int, ...]

    def release(self) -> None:
        """Give the devices back, as far as no other process has the descriptors too."""
        for descriptor in self.descriptors:
            os.close(descriptor)


@dataclass(frozen=True)
class Occupancy:
    """Who has which device, and who waits, the first first."""

    holders: dict[str, Entry | None]  # None: free
    waiting: list[Entry]

    @property
    def free(self) -> int:
        """Return how many devices nobody has."""
        return list(self.holders.values()).count(None)

    def __str__(self) -> str:
        by_holder: dict[Entry, list[str]] = {}
        for device, entry in self.holders.items():
            if entry:
                by_holder.setdefault(entry, []).append(short(device))
        busy = [f"{entry.holder} has {', '.join(devices)} since {entry.since}" for entry, devices in by_holder.items()]
        ahead = [f"{entry.holder} waits for {_wanted(entry)} since {entry.since}" for entry in self.waiting]
        return "; ".join([*busy, *ahead]) or "nobody has any"


def take(
    count: int, devices: Sequence[str], holder: str, say: Callable[[str], None], seconds: float = float("inf")
) -> Held:
    """Wait for `count` of the devices, in turn, and lease them.

    Args:
        devices: those that will do.
        holder: a name for those who wait meanwhile.
        say: hears for whom this one waits: at first, when that changes, and every ten minutes.
        seconds: to wait at most.

    Raises:
        ZeroVLError: they are not free within that time.
    """
    assert 0 < count <= len(devices)
    place, entry, began = folder(), Entry(holder, _now(), count, tuple(devices)), time.monotonic()
    told, at = "", began
    if not has_locks(place):
        return Held(tuple(devices[:count]), ())
    with rights_explained(place), _ticket(place, entry) as number:
        while True:
            with locked(place):
                ahead = [it for other, it in _tickets(place).items() if other < number and _competes(it, entry)]
                held = None if ahead else _leased(place, entry)
                others = str(Occupancy(_holders(place, devices), ahead))
            waited = time.monotonic() - began
            if held:
                break
            if waited >= seconds:
                raise ZeroVLError(f"{_wanted(entry)} did not come within {_minutes(seconds)}: {others}")
            if others != told or time.monotonic() - at >= _REMIND:
                say(f"waiting for {_wanted(entry)}{_so_far(waited)}: {others}")
                told, at = others, time.monotonic()
            time.sleep(min(_POLL, seconds - waited))
    if told:
        say(f"has {', '.join(short(device) for device in held.devices)} after {_minutes(waited)}: going on")
    return held


def look(devices: Sequence[str]) -> Occupancy:
    """Return who has the devices, and who waits for any of them; makes and changes nothing."""
    place = folder()
    if not place.is_dir():
        return Occupancy(dict.fromkeys(devices), [])
    with rights_explained(place), locked(place):
        waiting = [entry for entry in _tickets(place).values() if not set(entry.of).isdisjoint(devices)]
        return Occupancy(_holders(place, devices), waiting)


def short(device: str) -> str:
    """Return as much of a device's name as people need to tell it from others: the first block of a UUID."""
    return "-".join(device.split("-")[:2])


def _leased(place: Path, entry: Entry) -> Held | None:
    """Lease as many devices as the entry wants, or none; the folder is locked."""
    got: dict[str, int] = {}
    for device in entry.of:
        if len(got) < entry.wants and (descriptor := locked_file(_file(place, device))) is not None:
            got[device] = descriptor
    if len(got) < entry.wants:
        for descriptor in got.values():
            os.close(descriptor)
        return None
    entry = replace(entry, since=_now())
    for descriptor in got.values():
        entry.write(descriptor)
    return Held(tuple(got), tuple(got.values()))


@contextmanager
def _ticket(place: Path, entry: Entry) -> Iterator[int]:
    """Draw a ticket: the number after the last of those who wait."""
    with locked(place):
        _clear(place)
        number = max(_tickets(place), default=0) + 1
        path = place / f"{number}{_TICKET}"
        descriptor = locked_file(path)
        assert descriptor is not None  # nobody else makes one now
        entry.write(descriptor)
    try:
        yield number
    finally:
        _remove(path)
        os.close(descriptor)


def _tickets(place: Path) -> dict[int, Entry]:
    """Return who waits by number, the first first; the folder is locked."""
    tickets = place.glob(f"*{_TICKET}")
    found = {int(path.stem): entry for path in tickets if (entry := held_by(path)) is not None}
    return dict(sorted(found.items()))


def _clear(place: Path) -> None:
    """Remove the tickets that killed processes left; the folder is locked."""
    for path in place.glob(f"*{_TICKET}"):
        if held_by(path) is None:
            _remove(path)


def _remove(ticket: Path) -> None:
    with suppress(PermissionError):  # another user's, in a folder that somebody made sticky; nobody holds it
        ticket.unlink(missing_ok=True)


def _competes(other: Entry, entry: Entry) -> bool:
    """Whether both could use one device; a ticket that cannot be read could use any."""
    return not other.of or not set(other.of).isdisjoint(entry.of)


def _holders(place: Path, devices: Sequence[str]) -> dict[str, Entry | None]:
    return {device: held_by(_file(place, device)) for device in devices}


def _file(place: Path, device: str) -> Path:
    return place / f"{re.sub(r'[^A-Za-z0-9-]', '_', device)}{_LEASE}"


def _wanted(entry: Entry) -> str:
    if entry.of == CPU:
        return "the CPU"
    return "a GPU" if entry.wants == 1 else f"{entry.wants} GPUs"


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _so_far(seconds: float) -> str:
    return "" if seconds < 60 else f", so far for {_minutes(seconds)}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
