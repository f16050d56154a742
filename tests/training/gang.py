"""Run functions on gangs of gloo ranks: a fresh interpreter imports once and forks, so W ranks cost one import."""

import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def run_gang(world_size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 240) -> list[Any]:
    """Results of `function(ranks, *arguments)` on each rank; `function` lives at the top level of a test module."""
    (gang,) = run_gangs([(world_size, function, arguments)], timeout)
    for rank, status in enumerate(gang.statuses):
        assert status == 0, f"rank {rank} died (exit {status}):\n{gang.said}"
    return gang.results


@dataclass(frozen=True)
class Gang:
    """How a gang ended: exit statuses by rank (negative: the signal), results of ranks that returned, stderr of all."""

    statuses: list[int]
    results: list[Any]
    said: str


def run_gangs(jobs: list[tuple[int, Callable[..., Any], tuple[Any, ...]]], timeout: float = 240) -> list[Gang]:
    """Run (world_size, function, arguments) jobs at the same time, each in a gang of its own."""
    with tempfile.TemporaryDirectory() as folder:
        described = [
            (size, _free_port(), str(sys.modules[function.__module__].__file__), function.__name__, arguments)
            for size, function, arguments in jobs
        ]
        Path(folder, "jobs").write_bytes(pickle.dumps(described))
        done = subprocess.run(
            [sys.executable, __file__, folder], timeout=timeout, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        statuses = json.loads(done.stdout.splitlines()[-1])
        gangs = []
        for number, (size, *_) in enumerate(jobs):
            results = [Path(folder, f"result-{number}-{rank}") for rank in range(size)]
            gangs.append(
                Gang(
                    statuses[number],
                    [pickle.loads(path.read_bytes()) if path.is_file() else None for path in results],
                    Path(folder, f"stderr-{number}").read_text(),
                )
            )
        return gangs


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _main(folder: str) -> int:
    import transformers.models.bert.modeling_bert  # noqa: F401, else each rank imports it after the fork

    gangs: list[list[int]] = []
    for number, (world_size, port, module, name, arguments) in enumerate(
        pickle.loads(Path(folder, "jobs").read_bytes())
    ):
        sys.path.insert(0, str(Path(module).parent))
        function = getattr(__import__(Path(module).stem), name)
        gangs.append([])
        for rank in range(world_size):
            pid = os.fork()
            if pid == 0:
                os.dup2(os.open(Path(folder, f"stderr-{number}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
                os.dup2(2, 1)
                result = Path(folder, f"result-{number}-{rank}")
                os._exit(_rank(result, rank, world_size, port, function, arguments))
            gangs[-1].append(pid)
    print(json.dumps([[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] for pids in gangs]))
    return 0


def _rank(path: Path, rank: int, world_size: int, port: int, function: Any, arguments: Any) -> int:
    import torch

    from zerovl.training.ranks import join

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
