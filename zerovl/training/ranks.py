"""The processes of one training run and what they tell each other."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from zerovl.objective.collectives import Collectives, OneRank, ProcessGroup

TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process's place in the run; one rank without torchrun is a world of one."""

    rank: int
    world_size: int
    device: torch.device
    collectives: Collectives

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true on all ranks where it is true on one; a collective."""
        if self.world_size == 1:
            return flags
        values = self.collectives.sum(torch.tensor([float(flag) for flag in flags], device=self.device))
        return tuple(value > 0 for value in values.tolist())


@contextmanager
def join() -> Iterator[Ranks]:
    """Join the run that torchrun's environment describes; leave it cleanly at the end."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Ranks(0, 1, device, OneRank())
        return
    dist.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT, device_id=device if cuda else None)
    try:
        group = ProcessGroup()
        yield Ranks(group.rank, group.world_size, device, group)
    finally:
        dist.destroy_process_group()


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask Linux to send this process a signal when its parent dies: a killed launcher leaves no orphan."""
    if sys.platform == "linux":
        parent = os.getppid()
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
        if os.getppid() != parent:  # it died in between
            os.kill(os.getpid(), number)
