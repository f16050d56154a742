"""Who makes progress and who does not: a thread beside training that ends a group which is stuck.

Each rank marks what it does in an `Activity`; its watchdog publishes that in the store of the run
every few seconds. A group is stuck when no rank has made progress for the limit. The blamed ranks are
those that do not answer at all (stopped, or their machine is gone), else those that are furthest
behind; a rank that waits inside a collective waits for somebody else. The first watchdog that
comes to a finding writes it into the store and says it; all end their processes by it.

The same thread ends a rank whose group cannot go on although its main thread waits in a collective:
when another rank told of its failure, or when SIGTERM came and a peer no longer answers.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from zerovl.distributed import exits
from zerovl.distributed.activity import SAVING, Activity
from zerovl.distributed.heartbeats import STORE_SECONDS, Heartbeat, Heartbeats, blamed_ranks, stuck_message
from zerovl.distributed.siblings import end_siblings

HEARTBEAT_SECONDS = 2.0
MISSED_HEARTBEATS = 4  # as many without a new one, and a rank counts as silent
ENDING_SECONDS = 60.0  # after which a watchdog that found its group stuck has ended its process
SAVING_SECONDS = 20.0  # that a checkpoint on its way is waited for; torchrun kills after 30


class Watchdog:
    """Watches one rank, and with heartbeats its group; `start` and `stop` belong to the main thread."""

    def __init__(self, activity: Activity, minutes: float, rank: int = 0, heartbeats: Heartbeats | None = None) -> None:
        self._activity = activity
        self._minutes = minutes
        self._rank = rank
        self._heartbeats = heartbeats
        self._in_group = heartbeats is not None
        self._heartbeat_seconds = min(HEARTBEAT_SECONDS, 60 * minutes / 6)
        self._marks = -1
        self._idle = 0.0
        self._sent = 0
        self._ticked = time.monotonic()
        self._seen: dict[int, tuple[int, float, bool]] = {}  # a peer's last heartbeat, since when, any newer one
        self._terminated = False
        self._stopping = False
        self._ending = False  # the group is stuck: this process is about to end by that finding
        self._pipe: tuple[int, int] | None = None
        self._old_wakeup = -1
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread, and hear of signals that the main thread may not come to."""
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
        if threading.current_thread() is threading.main_thread():
            # Python runs signal handlers in the main thread, which may sit in a collective for ever; this
            # descriptor gets the signal's number at once.
            self._old_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; peers learn that this rank is done and not silent."""
        if self._pipe is None:
            return
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._old_wakeup)
        self._stopping = True
        os.write(self._pipe[1], b"\0")
        self._thread.join(timeout=STORE_SECONDS)
        if self._thread.is_alive():
            return  # blocked on a dead store; it is a daemon and keeps its descriptors
        for end in self._pipe:
            os.close(end)
        self._pipe = None
        self._quietly(lambda heartbeats: heartbeats.publish(self._heartbeat(left=True)))

    def announce(self, text: str, status: int) -> bool:
        """Tell the group that this rank ends by an error of its own; false where another rank said the same before.

        Returns when all have heard it, or a few seconds later.
        """
        heartbeats = self._heartbeats
        if heartbeats is None or self._pipe is None:
            return True
        self._stopping = True
        os.write(self._pipe[1], b"\0")
        try:
            self._thread.join(timeout=STORE_SECONDS)
            held = heartbeats.claim_end({"kind": "failed", "text": text, "rank": self._rank, "status": status})
            if held["rank"] != self._rank:
                heartbeats.acknowledge()
            deadline = time.monotonic() + 3 * self._heartbeat_seconds
            while heartbeats.heard() < heartbeats.world_size - 1 and time.monotonic() < deadline:
                time.sleep(0.05)
        except RuntimeError:
            return True  # the store is gone with its host: nobody is left to tell
        return bool(held["rank"] == self._rank or held["text"] != text)

    def let_end(self) -> None:
        """Wait where the watchdog is about to end this process, which it does: its finding names who is to blame.

        A rank that it kills breaks the collective that this rank waits in; that error alone would hide the cause.
        """
        if self._ending:
            self._thread.join(timeout=ENDING_SECONDS)

    def _run(self) -> None:
        assert self._pipe is not None
        self._tick()  # at once: a rank that stops soon after is known by its host and process id
        while not self._stopping:
            if select.select([self._pipe[0]], [], [], self._heartbeat_seconds)[0]:
                numbers = os.read(self._pipe[0], 256)
                self._terminated |= signal.SIGTERM in numbers or signal.SIGINT in numbers
                if set(numbers) - {0}:
                    time.sleep(min(0.2, self._heartbeat_seconds))  # signals come in swarms, heartbeats need not
            if not self._stopping:
                self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        # A suspended machine or a Ctrl-Z is no lack of progress: a long gap counts as two heartbeats at most.
        elapsed, self._ticked = min(now - self._ticked, 2 * self._heartbeat_seconds), now
        marks = self._activity.marks
        self._idle = self._idle + elapsed if marks == self._marks else 0.0
        self._marks = marks
        stuck = self._idle >= 60 * self._minutes
        alone = self._heartbeats is None
        self._quietly(self._tell_and_listen)
        if alone:
            if stuck:
                self._end_alone()
        elif stuck or self._terminated:
            self._quietly(self._look_at_peers if stuck else self._leave_if_a_peer_is_gone)
        else:
            self._seen.clear()

    def _quietly(self, talk: Any) -> None:
        """Talk to the group; when its store is gone, this rank watches itself alone, with the whole limit again.

        A group that is ending loses its store, and a rank that has not heard of the finding yet has nothing to say.
        """
        if self._heartbeats is None:
            return
        try:
            talk(self._heartbeats)
        except RuntimeError:  # torch.distributed's errors are; the main thread meets the same in its next collective
            self._heartbeats = None
            self._idle = 0.0

    def _heartbeat(self, left: bool = False) -> Heartbeat:
        self._sent += 1
        activity, host = self._activity, socket.gethostname()
        return Heartbeat(
            rank=self._rank,
            host=host,
            pid=os.getpid(),
            number=self._sent,
            step=activity.step,
            calls=activity.calls,
            phase=activity.phase,
            waiting=activity.waiting,
            idle=self._idle,
            left=left,
        )

    def _tell_and_listen(self, heartbeats: Heartbeats) -> None:
        heartbeats.publish(self._heartbeat())
        if end := heartbeats.end():
            self._obey(heartbeats, end)

    def _silent(self, heartbeats: Heartbeats) -> tuple[dict[int, Heartbeat], set[int], set[int]]:
        """Heartbeats of the other ranks; who is silent; and of whom it is not known yet."""
        now = time.monotonic()
        peers = heartbeats.newest()
        silent, unknown = set(), set()
        for rank in range(heartbeats.world_size):
            if rank == self._rank or (rank in peers and peers[rank].left):
                continue
            number = peers[rank].number if rank in peers else 0
            last, since, answered = self._seen.get(rank, (number, now, False))
            if number != last:
                since, answered = now, True
            self._seen[rank] = (number, since, answered)
            if now - since > MISSED_HEARTBEATS * self._heartbeat_seconds:
                silent.add(rank)
            elif not answered:
                unknown.add(rank)
        return peers, silent, unknown

    def _look_at_peers(self, heartbeats: Heartbeats) -> None:
        peers, silent, unknown = self._silent(heartbeats)
        present = [peer for peer in peers.values() if not peer.left]
        moving = [peer for peer in present if peer.rank not in silent and peer.idle < 60 * self._minutes]
        if unknown or moving:
            return
        missing = silent - peers.keys()
        text = stuck_message([self._heartbeat(), *present], silent, missing, self._minutes)
        blamed = blamed_ranks([self._heartbeat(), *present], silent)
        end = {"kind": "stuck", "text": text, "rank": self._rank, "status": exits.STUCK, "blamed_ranks": blamed}
        held = heartbeats.claim_end(end)
        if held["rank"] == self._rank:
            _say(held["text"])
        self._obey(heartbeats, held)

    def _leave_if_a_peer_is_gone(self, heartbeats: Heartbeats) -> None:
        """SIGTERM came: ranks that still answer save and leave together, but not for one that is gone."""
        peers, silent, _ = self._silent(heartbeats)
        if silent:
            gone = ", ".join(peers[rank].where() if rank in peers else f"rank {rank}" for rank in sorted(silent))
            self._let_save()
            end_siblings([peers[rank] for rank in silent if rank in peers])
            text = f"rank {self._rank} leaves: {gone} does not answer"
            _say(text)
            exits.write_error_file(text, consequence=True)
            exits.leave(exits.LOST_PEER)

    def _obey(self, heartbeats: Heartbeats, end: dict[str, Any]) -> None:
        """Leave as another rank, or this one, has found."""
        if end.get("status") in exits.FINAL:
            exits.end_agent()  # before the failed rank leaves: this one's main thread may lose it and be started again
        with suppress(RuntimeError):  # the store may go with the rank that holds it
            heartbeats.acknowledge()
        if end["kind"] == "failed":
            self._let_save()
            time.sleep(self._heartbeat_seconds)  # the main thread may notice by itself and leave in order
            if self._stopping:
                return
            exits.write_error_file(f"rank {self._rank} leaves: rank {end['rank']} failed", consequence=True)
            exits.leave(end["status"] if end["status"] in exits.FINAL else exits.LOST_PEER)
        self._ending = True
        if self._rank in end["blamed_ranks"]:
            self._dump()
        else:
            peers: dict[int, Heartbeat] = {}
            with suppress(RuntimeError):
                peers = heartbeats.newest()
            time.sleep(2 * self._heartbeat_seconds)  # blamed ranks that answer show their stacks first
            end_siblings([peers[rank] for rank in end["blamed_ranks"] if rank in peers])
        exits.write_error_file(end["text"])
        exits.leave(exits.STUCK)

    def _end_alone(self) -> None:
        if self._in_group:
            place = self._heartbeat().where()
            text = f"no progress for {self._minutes:g} minutes: {place}; the store of the run is gone, so are its peers"
        else:
            text = stuck_message([self._heartbeat()], set(), set(), self._minutes)
        _say(text)
        self._dump()
        exits.write_error_file(text)
        exits.leave(exits.STUCK)

    def _let_save(self) -> None:
        deadline = time.monotonic() + SAVING_SECONDS
        while self._activity.phase == SAVING and time.monotonic() < deadline:
            time.sleep(0.1)

    def _dump(self) -> None:
        exits.say(f"stacks of rank {self._rank}, pid {os.getpid()}:")
        with suppress(OSError, ValueError, RuntimeError):  # stderr is closed, or was never there
            faulthandler.dump_traceback(sys.stderr, all_threads=True)


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write("\n")  # a progress bar has no end yet; the time belongs before the words
    exits.say(f"zerovl train: {text}")
