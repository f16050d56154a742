"""The processes of one training run, as one of them sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from zerovl.distributed.activity import Activity
from zerovl.distributed.collectives import Collectives


@dataclass(frozen=True)
class Ranks:
    """This process's place in the run; one rank without torchrun is a world of one."""

    rank: int
    world_size: int
    device: torch.device
    collectives: Collectives
    activity: Activity = field(default_factory=Activity)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes and speaks for all."""
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true on all ranks where it is true on one; a collective."""
        if self.world_size == 1:
            return flags
        values = self.collectives.sum(torch.tensor([float(flag) for flag in flags], device=self.device))
        return tuple(value > 0 for value in values.tolist())
