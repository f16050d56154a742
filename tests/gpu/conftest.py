"""What the tests of the GPU share. They need torch, timm, transformers, and what CONTRIBUTING.md names beside them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from zerovl.device import own_device
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The GPU, with what tests before left on it given back."""
    found = own_device()
    _give_back(found)
    yield found
    _give_back(found)


@pytest.fixture
def one_rank(device: torch.device) -> Ranks:
    """A run of one rank on the GPU."""
    return Ranks(0, 1, device, OneRank())


@pytest.fixture
def process_group(device: torch.device, tmp_path: Path) -> Iterator[None]:
    """A world of one rank, joined by a file, whose collectives are NCCL's on a GPU."""
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{tmp_path}/rendezvous",
        rank=0,
        world_size=1,
        device_id=torch.device("cuda", device.index or 0) if on_gpu else None,
    )
    yield
    dist.destroy_process_group()


def _give_back(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
