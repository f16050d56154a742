"""Run functions on gangs of gloo ranks: a fresh interpreter imports once and forks, so W ranks cost one import."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.ports import free_port


def run_gang(world_size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 240) -> list[Any]:
    """Results of `function(ranks, *arguments)` on each rank; `function` lives at the top level of a test module."""
    (gang,) = run_gangs([(world_size, function, arguments)], timeout=timeout)
    for rank, status in enumerate(gang.statuses):
        assert status == 0, f"rank {rank} died (exit {status}):\n{gang.said}"
    return gang.results


@dataclass(frozen=True)
class Gang:
    """How a gang ended: exit statuses by rank (negative: the signal), results of ranks that returned, stderr of all."""

    statuses: list[int]
    results: list[Any]
    said: str


Job = tuple[int, Callable[..., Any], tuple[Any, ...]]


def run_gangs(*waves: list[Job], timeout: float = 500) -> list[Gang]:
    """Run jobs (world_size, function, arguments), each in a gang of its own: those of a wave at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        described = [[_described(*job) for job in wave] for wave in waves]
        Path(folder, "waves").write_bytes(pickle.dumps(described))
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.rank_groups", folder],
            cwd=ROOT,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [_ended(Path(folder), number, statuses) for number, statuses in enumerate(json.loads(done.stdout))]


def _described(world_size: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return world_size, str(sys.modules[function.__module__].__file__), function.__name__, arguments


def _ended(folder: Path, number: int, statuses: list[int]) -> Gang:
    paths = [folder / f"result-{number}-{rank}" for rank in range(len(statuses))]
    results = [pickle.loads(path.read_bytes()) if path.is_file() else None for path in paths]
    return Gang(statuses, results, (folder / f"stderr-{number}").read_text())


def _main(folder: str) -> int:
    import transformers.models.bert.modeling_bert  # noqa: F401, else each rank imports it after the fork

    ended: list[list[int]] = []
    for wave in pickle.loads(Path(folder, "waves").read_bytes()):
        gangs = [_start(folder, len(ended) + place, *job) for place, job in enumerate(wave)]
        ended += [[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] for pids in gangs]
    print(json.dumps(ended))
    return 0


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
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
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


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
