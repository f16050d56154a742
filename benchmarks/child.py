"""One measurement in a fresh process: a peak of memory can only be taken once in the life of a process.

python -m benchmarks.child benchmarks.bench_loss:peak '{"name": "tiled", "pairs": 4096, "width": 512}'
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from typing import Any, Protocol

from benchmarks.common import HERE, Record, measured


class Runner(Protocol):
    def __call__(self, task: str, **arguments: Any) -> Record:
        """Call `task`, as "module:function"; its arguments and its record are JSON."""


def in_child(task: str, **arguments: Any) -> Record:
    """In a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", task, json.dumps(arguments)],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        return {"not_measured": f"ended by signal {-done.returncode}, as the kernel does when memory is out"}
    if done.returncode:
        raise SystemExit(f"{task} {arguments} failed with exit code {done.returncode}; its messages are above")
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record


def in_process(task: str, **arguments: Any) -> Record:
    """In this process: for a test of the machinery, not for figures."""
    module, function = task.split(":")
    return measured(lambda: getattr(importlib.import_module(module), function)(**arguments))


def main(arguments: list[str]) -> int:
    """The other side of `in_child`: the record is the last line of the output."""
    task, values = arguments
    print(json.dumps(in_process(task, **json.loads(values))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
