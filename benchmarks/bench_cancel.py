"""Seconds from Cancel to the end of a run, on a real server and worker, in the middle of each stage: flows/README.md.

python -m benchmarks.bench_cancel           # a quarter of an hour

A stage stops where half of its files are there, at a pipe that nobody writes to, and tells so; `train` is cancelled
between steps. Two more runs are cancelled while git waits for a remote that never answers, and while DVC reads a file
of a terabyte. After each there is no process, no lease, and no stage that DVC takes for done; in the end a run is
completed, and its release is equal to one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

from benchmarks.common import RESULTS, Record, Results
from tests.support.factory import Factory
from tests.support.prefect_api import DONE, PATIENCE, wait_for
from tests.support.project_copy import commit, git
from zerovl.yaml_file import read_yaml

# Of the tests, which wait for less than people do.
_HURRIED = (
    "PREFECT_WORKER_QUERY_SECONDS",
    "PREFECT_RUNNER_POLL_FREQUENCY",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL",
    "ZEROVL_GRACE_SECONDS",
    "ZEROVL_RETRY_SECONDS",
    "ZEROVL_LOOK_SECONDS",
    "ZEROVL_NOTIFY",
)
# Laid over a module of the project's copy: what a function does is done, then it stops where `hold-STAGE` is a pipe.
_HOLD = """

def _then_hold(call):
    import os
    from pathlib import Path

    def held(*arguments, **options):
        made = call(*arguments, **options)
        pipe = Path(os.environ["ZEROVL_ROOT"], "hold-{stage}")
        if pipe.is_fifo():
            pipe.with_name("held").touch()
            pipe.read_bytes()
        return made

    return held


{function} = _then_hold({function})
"""
_HOLDS = {  # by stage
    "prepare": ("zerovl/data/shard_writing.py", "ShardWriter.add"),  # a shard has its first sample
    "validate": ("zerovl/data/validation/scan.py", "measure"),  # the list of broken inputs has its head
    "evaluate": ("zerovl/stages/evaluate.py", "write_queries"),  # places are there, metrics and page are not
}
# The same, of the end of `prepare`: the outputs that DVC then reads have a file of a terabyte, which takes no room.
_HUGE = """

def _with_a_huge_file(call):
    import os
    from pathlib import Path

    def summarise(manifest, chosen, workspace, *others):
        call(manifest, chosen, workspace, *others)
        if Path(os.environ["ZEROVL_ROOT"], "huge").is_file():
            with open(workspace.shards / "huge", "wb") as file:
                file.truncate(1 << 40)

    return summarise


_summarise = _with_a_huge_file(_summarise)
"""

# Makes the middle of a run, for as long as it is open; gives what returns once a run has come there.
Case = Callable[[Factory], AbstractContextManager[Callable[[str], object]]]


@contextmanager
def held(stage: str, factory: Factory) -> Iterator[Callable[[str], object]]:
    """Stop the stage in its middle."""
    pipe, word = factory.root / f"hold-{stage}", factory.root / "held"
    os.mkfifo(pipe)
    try:
        yield lambda run: factory.wait_while(run, f"the middle of {stage}", word.is_file)
    finally:
        pipe.unlink()
        word.unlink(missing_ok=True)


@contextmanager
def training(factory: Factory) -> Iterator[Callable[[str], object]]:
    """Let each step of a training after the fifth take half a minute, unless it is interrupted."""
    factory.slow_from(5)
    try:
        yield lambda run: factory.wait_for_steps(run, 3)
    finally:
        factory.slow_from(None)


@contextmanager
def hashing(factory: Factory) -> Iterator[Callable[[str], object]]:
    """Let DVC read a file that takes it an hour."""
    word = factory.root / "huge"

    def reads(run: str) -> bool:
        for each in factory.of_run(run):
            with suppress(psutil.Error):
                if any(file.path.endswith("/huge") for file in each.open_files()):
                    return True
        return False

    word.touch()
    try:
        yield lambda run: factory.wait_while(run, "DVC that hashes", lambda: reads(run))
    finally:
        word.unlink()


@contextmanager
def dead_remote(factory: Factory) -> Iterator[Callable[[str], object]]:
    """Let `origin` take every connection and never say a word."""
    with ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(PATIENCE)
        git(factory.root, "remote", "add", "origin", f"http://127.0.0.1:{server.getsockname()[1]}/project.git")
        opened.callback(git, factory.root, "remote", "remove", "origin")
        yield lambda run: opened.enter_context(server.accept()[0])


CASES: dict[str, tuple[str, Case]] = {  # with the stage that must not be done afterwards
    "git waits for a dead remote": ("", dead_remote),
    "prepare": ("prepare", partial(held, "prepare")),
    "DVC hashes": ("prepare", hashing),
    "validate": ("validate", partial(held, "validate")),
    "train": ("train", training),
    "evaluate": ("evaluate", partial(held, "evaluate")),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Cancel a run of each case and write the seconds; raises `AssertionError` where one leaves anything behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "cancel.json", help="result file")
    options = parser.parse_args(arguments)
    os.environ["ZEROVL_DEVICE"] = "cpu"  # the same on every machine
    results = Results(options.out, {})
    with tempfile.TemporaryDirectory(prefix="zerovl-cancel-") as folder, ExitStack() as opened:
        factory = _started(Path(folder), opened)
        for name, (stage, case) in CASES.items():
            results.add("cancelled", name, cancelled(factory, stage, case))
        results.add("afterwards", "the release", _release(factory))
    return results.status()


def cancelled(factory: Factory, stage: str, case: Case) -> Record:
    """Start a run, cancel it in its middle, and return how long its state and its processes take."""
    with case(factory) as come_to_the_middle:
        run = factory.run("train/train", revision="HEAD" if stage else "main", after="register")
        come_to_the_middle(run)
        began = time.monotonic()
        factory.cancel(run)
        waited: dict[str, Callable[[], bool]] = {
            "seconds_to_cancelled": lambda: factory.state(run)["type"] in DONE,
            "seconds_to_no_process": lambda: not factory.of_run(run),
        }
        record: Record = {}

        def over() -> bool:
            for key, look in waited.items():
                if key not in record and look():
                    record[key] = round(time.monotonic() - began, 1)
            return len(record) == len(waited)

        wait_for(f"the end of run {run}", over)
    assert factory.state(run)["name"] == "Cancelled", factory.state(run)
    if Path(factory.environment["ZEROVL_LEASE"], "cpu.lease").is_file():
        factory.gone()
    lock = factory.paths.checkouts / factory.name(run) / "dvc.lock"
    done = read_yaml(lock)["stages"] if lock.is_file() else {}
    assert stage not in done, f"{stage} was cancelled, and DVC takes it for done: {sorted(done)}"
    return record


def _started(folder: Path, opened: ExitStack) -> Factory:
    """Start server and worker with the project's copy, whose stages can be held."""
    factory = Factory(folder)
    for name in _HURRIED:
        del factory.environment[name]
    factory.environment["no_proxy"] = "*"  # a proxy would answer in the dead remote's place
    for stage, (module, function) in _HOLDS.items():
        _append(factory.root / module, _HOLD.format(stage=stage, function=function))
    _append(factory.root / "zerovl/stages/prepare.py", _HUGE)
    _append(factory.root / ".git/info/exclude", "/hold-*\n/held\n/huge\n")
    commit(factory.root, "stages that can be held")
    opened.callback(factory.stop)
    factory.start_server()
    factory.command("-m", "flows.server.deploy")
    factory.start_worker()
    return factory


def _append(file: Path, text: str) -> None:
    with open(file, "a", encoding="utf-8") as opened:
        opened.write(text)


def _release(factory: Factory) -> Record:
    """Let a run come to its end, then make its release again apart from what the cancelled ones left."""
    run = factory.run("train/train", after="register")
    factory.completed(run)
    assert factory.version(1)["by"] == f"run {factory.name(run)}"
    apart = {"ZEROVL_FLOWS": str(factory.root / ".apart")}
    made: Record = json.loads(factory.command("-m", "flows.reproduce", "--release", "zerovl@1", **apart))
    assert made["verdict"] == "equal", made
    return made


if __name__ == "__main__":
    sys.exit(main())
