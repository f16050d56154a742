"""Run functions on groups of gloo ranks, forked by a process of the fork server: W ranks cost no import."""

import faulthandler
import json
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fork_server import run_forked
from tests.support.ports import free_port


def run_group(world_size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 240) -> list[Any]:
    """Results of `function(ranks, *arguments)` on each rank; `function` lives at the top level of a test module.

    Its attribute `node_size`, where it has one, is how many ranks torchrun would say that a node has.
    """
    (group,) = run_groups([(world_size, function, arguments)], timeout=timeout)
    for rank, status in enumerate(group.statuses):
        assert status == 0, f"rank {rank} died (exit {status}):\n{group.said}"
    return group.results


@dataclass(frozen=True)
class Group:
    """How a group ended: statuses by rank (negative: the signal), results of ranks that returned, stderr of all."""

    statuses: list[int]
    results: list[Any]
    said: str


Job = tuple[int, Callable[..., Any], tuple[Any, ...]]


def run_groups(*waves: list[Job], timeout: float = 500) -> list[Group]:
    """Run jobs (world_size, function, arguments), each in a group of its own: those of a wave at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        described = [[_described(*job) for job in wave] for wave in waves]
        Path(folder, "waves").write_bytes(pickle.dumps(described))
        statuses = json.loads(run_forked("tests.support.rank_groups:main", folder, timeout=timeout))
        return [_ended(Path(folder), number, its) for number, its in enumerate(statuses)]


def _described(world_size: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return world_size, str(sys.modules[function.__module__].__file__), function.__name__, arguments


def _ended(folder: Path, number: int, statuses: list[int]) -> Group:
    paths = [folder / f"result-{number}-{rank}" for rank in range(len(statuses))]
    results = [pickle.loads(path.read_bytes()) if path.is_file() else None for path in paths]
    return Group(statuses, results, (folder / f"stderr-{number}").read_text())


def main() -> None:
    """Start the groups that are described in the folder `sys.argv[1]`, and print how their ranks ended."""
    folder = sys.argv[1]
    ended: list[list[int]] = []
    for wave in pickle.loads(Path(folder, "waves").read_bytes()):
        groups = [_start(folder, len(ended) + place, *job) for place, job in enumerate(wave)]
        ended += [[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] for pids in groups]
    print(json.dumps(ended))


def _start(folder: str, number: int, world_size: int, module: str, name: str, arguments: Any) -> list[int]:
    port = free_port()
    sys.path.insert(0, str(Path(module).parent))
    function = getattr(__import__(Path(module).stem), name)
    pids = []
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(Path(folder, f"stderr-{number}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            os.dup2(2, 1)
            os._exit(_rank(Path(folder, f"result-{number}-{rank}"), rank, world_size, port, function, arguments))
        pids.append(pid)
    return pids


def _rank(path: Path, rank: int, world_size: int, port: int, function: Any, arguments: Any) -> int:
    import torch

    from zerovl.distributed.join import join
    from zerovl.processes import die_with_parent

    die_with_parent()
    faulthandler.enable()  # a rank that dies of a signal says where
    torch.set_num_threads(1)
    node_size = getattr(function, "node_size", world_size)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % node_size),
        "LOCAL_WORLD_SIZE": str(node_size),
        "GROUP_RANK": str(rank // node_size),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        with join(getattr(function, "watchdog_minutes", 15.0)) as ranks:
            result = function(ranks, *arguments)
        path.write_bytes(pickle.dumps(result))
        return 0
    except BaseException:
        traceback.print_exc()
        return 1
