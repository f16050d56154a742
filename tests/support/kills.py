"""Train a project while ranks are killed: a process of the fork server forks the ranks of every start."""

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support.fork_server import run_forked
from tests.support.ports import free_port

STUCK = 120  # seconds after which a start is given up


@dataclass(frozen=True)
class Kill:
    """`kill -9` of `rank`: at its so many-th touch of a file while it saves, or so long after so many new steps."""

    rank: int
    save_event: int | None
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """A project folder, trained by so many ranks: a start for each kill, and one more to the end."""

    root: str
    ranks: int
    kills: list[Kill]


@dataclass(frozen=True)
class Death:
    """What a kill left in the folder of the checkpoints."""

    steps: list[int]
    leftovers: list[str]
    broken: list[str]


def random_kills(count: int, ranks: int, rng: random.Random) -> list[Kill]:
    """Half of them inside one of the first saves, half at any time."""
    inside = [Kill(rank, rng.randrange(1, _touches(rank))) for rank in rng.choices(range(ranks), k=count // 2)]
    anywhen = [
        Kill(rng.randrange(ranks), None, rng.randrange(1, 4), rng.uniform(0, 0.03)) for _ in range(count - len(inside))
    ]
    kills = inside + anywhen
    rng.shuffle(kills)
    return kills


def _touches(rank: int) -> int:
    """Of files by a rank in its first three saves or four: the first rank completes the checkpoint, and prunes."""
    return 10 if rank else 40


def train_and_kill(runs: list[Run], timeout: float = 570) -> list[list[Death]]:
    """The deaths of each run; `params.yaml` is that in its folder."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "job").write_text(json.dumps([asdict(run) for run in runs]))
        run_forked("tests.support.kills:main", folder, timeout=timeout)
        return [[Death(**death) for death in run] for run in json.loads(Path(folder, "deaths").read_text())]


def main() -> None:
    """Do the runs that are described in the folder `sys.argv[1]`, and leave the deaths there."""
    folder = sys.argv[1]
    runs = json.loads(Path(folder, "job").read_text())
    sys.modules["dvclive"] = None  # type: ignore[assignment]  # its plots are not what is tested, and cost seconds
    deaths = [_run(Path(run["root"]), run["ranks"], [Kill(**kill) for kill in run["kills"]]) for run in runs]
    Path(folder, "deaths").write_text(json.dumps([[asdict(death) for death in run] for run in deaths]))


def _run(root: Path, ranks: int, kills: list[Kill]) -> list[Death]:
    deaths = []
    for kill in kills:
        codes = _start(root, ranks, kill)
        assert codes[kill.rank] == -signal.SIGKILL, f"{kill} did not hit: {codes}"
        deaths.append(_death(root, ranks))
    codes = _start(root, ranks, None)
    assert codes == [0] * ranks, codes
    return deaths


def _death(root: Path, ranks: int) -> Death:
    folders = list(root.glob("runs/*/checkpoints/*"))
    whole = [path for path in folders if path.name.startswith("step-")]
    return Death(
        steps=sorted(int(path.name.removeprefix("step-")) for path in whole),
        leftovers=sorted(path.name for path in folders if path.name.startswith(".")),
        broken=sorted(path.name for path in whole if len(list(path.iterdir())) != ranks + 1),
    )


def _start(root: Path, ranks: int, kill: Kill | None) -> list[int]:
    """Exit codes of the ranks; when one is killed the others are ended too, as torchrun does."""
    port = free_port()
    rows = _rows(root)
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            os._exit(_rank(root, rank, ranks, port, kill))
        pids.append(pid)
    codes: dict[int, int] = {}
    deadline = time.monotonic() + STUCK
    reached = None
    while len(codes) < ranks:
        for rank, pid in enumerate(pids):
            if rank not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[rank] = os.waitstatus_to_exitcode(ended[1])
        if kill and not kill.save_event and kill.rank not in codes:
            if reached is None and _rows(root) >= rows + kill.steps:
                reached = time.monotonic()
            if reached is not None and time.monotonic() >= reached + kill.seconds:
                os.kill(pids[kill.rank], signal.SIGKILL)
        if any(codes.values()) or time.monotonic() > deadline:
            for rank in set(range(ranks)) - codes.keys():
                os.kill(pids[rank], signal.SIGKILL)
        time.sleep(0.002)
    return [codes[rank] for rank in range(ranks)]


def _rows(root: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in root.glob("runs/*/metrics.jsonl"))


def _rank(root: Path, rank: int, ranks: int, port: int, kill: Kill | None) -> int:
    import torch

    from zerovl import params_file
    from zerovl.training.one_rank import train_rank
    from zerovl.workspace import Workspace

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if kill and kill.rank == rank and kill.save_event:
        _die_in_save(kill.save_event)
    try:
        return train_rank(params_file.load(root / "params.yaml"), Workspace(root))
    except BaseException:
        traceback.print_exc()
        return 1


def _die_in_save(event: int) -> None:
    left = [event]

    def hook(name: str, _arguments: tuple[Any, ...]) -> None:
        if name.startswith(("open", "os.", "shutil.")) and threading.current_thread().name == "checkpoint":
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
