"""Several processes that make an index together, each with the model on a device of its own.

Rank r of R takes the parts whose number leaves r when divided by R. A part is embedded as one process alone would, so
the numbers are the same; the update that comes after the ranks finds them by the identities of their pictures.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from zerovl import cores, heap, log
from zerovl.device import gpu_count, own_device
from zerovl.errors import ZeroVLError
from zerovl.indexing.index import read_description
from zerovl.indexing.listing import Listing, in_parts
from zerovl.indexing.update import PART, check_parts, known_in, make_part, without_problem
from zerovl.processes import start_pool_worker

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder


class Load(Protocol):
    """Loads a model by reference: `zerovl.load`."""

    def __call__(self, reference: str, *, device: str = ...) -> Encoder: ...


def make_shares(folder: Path, listing: Listing, load: Load, model: str, ranks: int) -> None:
    """Let `ranks` processes make the parts of an index; raises `ZeroVLError` where one of them fails."""
    context = multiprocessing.get_context("spawn")  # a fork has no use of a GPU that its parent has opened
    processes: list[BaseProcess] = [
        context.Process(target=_rank, args=(folder, listing, load, model, rank, ranks), daemon=True)
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            process.start()
        for rank, process in enumerate(processes):
            process.join()
            if process.exitcode:
                raise ZeroVLError(f"rank {rank} of {ranks} ended with {process.exitcode}; run it again to go on")
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()


def make_share(folder: Path, listing: Listing, encoder: Encoder, rank: int, ranks: int) -> None:
    """Embed what is not known of every `ranks`-th part of a listing, from part `rank` on.

    Raises `ZeroVLError` where the model is not the one that the parts were begun with.
    """
    check_parts(folder, encoder)
    known = known_in(folder, read_description(folder))
    for number, part in enumerate(in_parts(listing, PART)):
        if number % ranks != rank:
            continue
        usable = without_problem(part)
        missing = np.flatnonzero(known.places([one.identity for one in usable]) < 0).tolist()
        if missing:
            make_part(folder, [usable[row] for row in missing], encoder)


def _rank(folder: Path, listing: Listing, load: Load, model: str, rank: int, ranks: int) -> None:
    start_pool_worker()
    heap.keep_freed()
    log.setup()
    try:
        gpus = gpu_count()
        if not gpus:
            torch.set_num_threads(max(1, cores.core_count() // ranks))
        device = own_device(rank % max(1, gpus))
        make_share(folder, listing, load(model, device=str(device)), rank, ranks)
    except ZeroVLError as error:
        print(f"rank {rank} of {ranks}: {error}", file=sys.stderr)
        sys.exit(2)
