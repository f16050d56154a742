"""The processes of one training run, as one of them sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from zerovl.distributed.activity import Activity
from zerovl.distributed.collectives import Collectives, FromHost, OneRank
from zerovl.distributed.late_values import read_later


@dataclass(frozen=True)
class Ranks:
    """This process's place in the run; one rank without torchrun is a world of one."""

    rank: int
    world_size: int
    device: torch.device
    collectives: Collectives
    activity: Activity = field(default_factory=Activity)
    node_size: int | None = None  # ranks of this one's node, which follow each other; None: all are on one

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes and speaks for all."""
        return self.rank == 0

    @property
    def lag(self) -> int:
        """Steps that the host goes ahead of its device before it reads what that found; the CPU is its own device."""
        return 0 if self.device.type == "cpu" else 1

    def on_host(self) -> Ranks:
        """Return the same ranks for work whose tensors lie on the host, whatever device they train on."""
        return replace(self, device=torch.device("cpu"), collectives=FromHost(self.collectives, self.device))

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true on all ranks where it is true on one; a collective."""
        return self.start_any(*flags)()

    def start_any(self, *flags: bool) -> Callable[[], tuple[bool, ...]]:
        """Begin what `any` does; the returned function waits for it. A collective."""
        if self.world_size == 1:
            return lambda: flags
        own = torch.tensor([float(flag) for flag in flags])
        if self.device.type == "cuda":
            own = own.pin_memory()  # from other memory, a copy waits
        values = read_later(self.collectives.sum(own.to(self.device, non_blocking=True)))
        return lambda: tuple(value > 0 for value in values())


ALONE = Ranks(0, 1, torch.device("cpu"), OneRank())  # a world of one, on the CPU
