"""Join and leave a run of several processes: rendezvous, watchdog, process group, and a clean end."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from zerovl.device import own_device
from zerovl.distributed import exits
from zerovl.distributed.activity import Activity
from zerovl.distributed.collectives import OneRank, ProcessGroup
from zerovl.distributed.heartbeats import Heartbeats
from zerovl.distributed.ranks import Ranks
from zerovl.distributed.watchdog import Watchdog
from zerovl.errors import ZeroVLError

TIMEOUT = timedelta(minutes=30)  # of a collective, at least


@contextmanager
def join(watchdog_minutes: float = 15.0) -> Iterator[Ranks]:
    """Join the run that torchrun's environment describes; leave it cleanly at the end, or at once by an error.

    A watchdog runs inside the block. An error of this rank's own is told to the others first, so that
    they do not wait for it in a collective; raises SystemExit(2) instead of a `ZeroVLError` that another
    rank has said already. Raises `ZeroVLError` where a rank does not come in time, or as `own_device`.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = own_device(local_rank)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    activity = Activity()
    if world_size == 1:
        watchdog = Watchdog(activity, watchdog_minutes)
        watchdog.start()
        try:
            yield Ranks(0, 1, device, OneRank(), activity)
        finally:
            watchdog.stop()
        return
    # The watchdog is to end a stuck group first, with a name; the time-out of a collective has none.
    limit = max(TIMEOUT, timedelta(minutes=2 * watchdog_minutes))
    shared, rank, world_size = next(rendezvous("env://", timeout=limit))
    store = _meet(shared, rank, world_size, limit)
    watchdog = Watchdog(activity, watchdog_minutes, rank, Heartbeats(PrefixStore("watchdog", store), rank, world_size))
    watchdog.start()
    try:
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=limit,
            device_id=device if cuda else None,
        )
        node_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        yield Ranks(rank, world_size, device, ProcessGroup(activity.collective), activity, node_size)
    except BaseException as error:
        watchdog.let_end()
        first = exits.peer_is_gone(error) or watchdog.announce(*_last_word(error))
        _abort()
        if isinstance(error, ZeroVLError) and not first:
            raise SystemExit(exits.FAILED) from None
        raise
    else:
        watchdog.stop()
        dist.destroy_process_group()


def _meet(shared: Store, rank: int, world_size: int, limit: timedelta) -> Store:
    """A part of the store that only these W processes know, so that nothing of an earlier attempt is found there.

    After a restart torchrun offers the same store again, with the addresses of dead ranks in it. Its
    count of restarts does not tell the attempts apart: nodes count for themselves, and only one where a
    rank died counts up. So each rank knocks with a name of its own, and rank 0 answers with the name of
    this attempt until all have heard it.
    """
    deadline = time.monotonic() + limit.total_seconds()
    name = uuid.uuid4().hex
    if rank:
        shared.set(f"zerovl/knock/{rank}", name)
        try:
            shared.wait([f"zerovl/answer/{name}"], limit)
        except dist.DistStoreError:
            raise ZeroVLError(f"rank 0 did not answer rank {rank} within {limit}; look at its node's output") from None
        attempt = shared.get(f"zerovl/answer/{name}").decode()
        shared.set(f"zerovl/heard/{attempt}/{rank}", "")
        return PrefixStore(f"zerovl/{attempt}", shared)
    missing = set(range(1, world_size))
    while missing:
        for other in sorted(missing):
            if shared.check([f"zerovl/heard/{name}/{other}"]):
                missing.discard(other)
            elif shared.check([f"zerovl/knock/{other}"]):
                shared.set(f"zerovl/answer/{shared.get(f'zerovl/knock/{other}').decode()}", name)
        if missing and time.monotonic() > deadline:
            raise ZeroVLError(
                f"ranks {sorted(missing)} of {world_size} did not come within {limit}; look at their nodes' output"
            )
        time.sleep(0.02 if missing else 0)
    return PrefixStore(f"zerovl/{name}", shared)


def _last_word(error: BaseException) -> tuple[str, int]:
    """What the other ranks are told of this rank's error, and the status it ends with."""
    if isinstance(error, ZeroVLError):
        return str(error), exits.FAILED
    if isinstance(error, Exception):
        return f"{type(error).__name__}: {error}", exits.CRASHED
    return type(error).__name__, exits.FAILED  # KeyboardInterrupt, SystemExit


def _abort() -> None:
    """Leave the group without waiting for collectives that will never end; NCCL's own way would wait."""
    if not dist.is_initialized():
        return
    if dist.get_backend() == "nccl":
        abort = getattr(dist.group.WORLD, "abort", None)
        if abort is not None:
            with suppress(RuntimeError):  # the error that brought us here is the one to show
                abort()
        return
    dist.destroy_process_group()
