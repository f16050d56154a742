"""Prefect's worker, but for its runs: each is one process that imports Prefect once.

A run's process prepares itself (`prefect.runner._workspace_supervisor`) and then starts Python again as the engine, in
its place: two seconds of a CPU for the same imports. Here it goes on as the engine. Whoever signals it, kills it or
waits for it finds what there is else: one process, which the worker has started. Prefect's own way is shown by
`make ui` and by the server on PostgreSQL.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SUPERVISOR, _ENGINE = "prefect.runner._workspace_supervisor", "prefect.engine"


def main(words: Sequence[str]) -> int:
    """Be `prefect WORDS` of a worker, or with `prefect.engine CONFIG` a run that it started."""
    return _run(words[1]) if words[0] == _ENGINE else _work(words)


def _work(words: Sequence[str]) -> int:
    from prefect.runner import _workspace_starter

    to_string = _workspace_starter.command_to_string

    def in_place(command: list[str]) -> str:
        python, _, module, config = command
        assert module == _SUPERVISOR, command
        return to_string([python, "-m", __spec__.name, _ENGINE, config])

    _workspace_starter.command_to_string = in_place
    sys.argv = ["prefect", *words]
    runpy.run_module("prefect", run_name="__main__")
    return 0


def _run(config: str) -> int:
    from prefect.runner import _workspace_supervisor

    prepared: list[dict[str, Any]] = []

    async def launch(command: list[str], **place: Any) -> int:
        assert command[1:] == ["-m", _ENGINE], command
        prepared.append(place)
        return 0

    _workspace_supervisor._launch_engine = launch
    status = _workspace_supervisor.main([config])
    for place in prepared:
        _become_engine(**place)
    return status


def _become_engine(cwd: Path, environment: dict[str, str]) -> None:
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    rest = [place for place in sys.path[1:] if place not in before]
    sys.path[:] = [str(cwd), *environment["PYTHONPATH"].split(os.pathsep), *rest]
    sys.argv = [_ENGINE]
    sys.modules.pop(_ENGINE, None)  # as Prefect itself does where it calls the engine
    runpy.run_module(_ENGINE, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
