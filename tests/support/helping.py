"""A module that helps as `zerovl.distributed.helpers` has it: the job says how this helper's share ends."""

from __future__ import annotations

import os
import signal
import sys

import torch

from zerovl.distributed.helpers import help_with
from zerovl.distributed.ranks import Ranks
from zerovl.errors import ZeroVLError


def work(job: str, ranks: Ranks) -> None:
    """Add this rank's number to those of the others, or end before it as the job says."""
    if job == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "damaged":
        raise ZeroVLError(f"the shard of rank {ranks.rank} is damaged; get it again")
    ranks.collectives.sum(torch.tensor([ranks.rank]))


if __name__ == "__main__":
    sys.exit(help_with(work))
