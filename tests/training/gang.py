"""Run one function on W gloo ranks: a fresh interpreter imports once and forks, so W ranks cost one import."""

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_gang(world_size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 240) -> list[Any]:
    """Results of `function(ranks, *arguments)` on each rank; `function` lives at the top level of a test module."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        module = Path(sys.modules[function.__module__].__file__ or "")
        job = (world_size, port, str(module), function.__name__, arguments)
        Path(folder, "job").write_bytes(pickle.dumps(job))
        done = subprocess.run(
            [sys.executable, __file__, folder], timeout=timeout, capture_output=True, text=True, check=False
        )
        results = []
        for rank in range(world_size):
            path = Path(folder, f"result-{rank}")
            assert path.is_file(), f"rank {rank} died (exit {done.returncode}):\n{done.stdout}\n{done.stderr}"
            results.append(pickle.loads(path.read_bytes()))
        return results


def _main(folder: str) -> int:
    world_size, port, module, name, arguments = pickle.loads(Path(folder, "job").read_bytes())
    sys.path.insert(0, str(Path(module).parent))
    function = getattr(__import__(Path(module).stem), name)
    import transformers.models.bert.modeling_bert  # noqa: F401, else each rank imports it after the fork

    children = []
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            os._exit(_rank(folder, rank, world_size, port, function, arguments))
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


def _rank(folder: str, rank: int, world_size: int, port: int, function: Any, arguments: Any) -> int:
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
        with join() as ranks:
            result = function(ranks, *arguments)
        Path(folder, f"result-{rank}.part").write_bytes(pickle.dumps(result))
        Path(folder, f"result-{rank}.part").rename(Path(folder, f"result-{rank}"))
        return 0
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
