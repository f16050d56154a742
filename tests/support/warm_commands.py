"""Commands of a factory that no test interrupts, forked from one process that has imported the libraries.

Two thirds of the CPU time of `zerovl evaluate` in a test are imports of torch and transformers, half of that of
`zerovl validate` those of Great Expectations. The process here has libraries alone: the project's own modules are
imported by each command, from the checkout that it runs in. Whoever starts a command has a process of its own to wait
for and to signal, which hands folder, environment, streams and signals over; where it is killed, so is the command.

What flows run besides is handed over as well: DVC, Prefect's own deployment, changes of recipe and registry. A training
of several ranks is never, nor the DVC of any: their processes are what tests kill.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import json
import logging
import os
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from tests.support.forked_process import be_fresh, close_others, exit_status, leave

VARIABLE = "ZEROVL_TESTS_WARM"  # the socket of the process that has the libraries
STAGES = (["prepare"], ["validate"], ["evaluate"], ["register"])
_OF_FLOWS = (("-m", "zerovl.cli", "recipe"), ("-m", "zerovl.cli", "registry"))  # beside DVC
LIBRARIES = (
    *("pandas", "pyarrow.parquet", "pyarrow.dataset", "scipy.stats", "tokenizers", "boto3.s3.transfer"),
    *("great_expectations", "great_expectations.expectations.row_conditions"),
    *("torch", "torchvision", "timm", "safetensors.torch", "safetensors.numpy"),
    *("transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert"),
    *("transformers.models.clip.modeling_clip", "transformers.models.siglip.modeling_siglip"),
    *("dvc.repo.index", "dvc.cli.parser", "dvc.commands.repro", "dvc.rwlock", "dvc.analytics", "dvc_render", "dvclive"),
    *("scmrepo.git", "networkx", "prefect.flows", "prefect.task_engine", "prefect.runtime", "prefect.artifacts"),
    *("prefect.automations", "prefect.cli", "prefect.cli.deploy"),
)
# Laid over the command line of a project's copy.
HAND_OVER = """

from tests.support.warm_commands import handed_over

main = handed_over(main)
"""
# Laid over what the flows of a project's copy run commands with.
HAND_OVER_COMMANDS = """

from tests.support.warm_commands import commands_handed_over

run = commands_handed_over(run)
"""
# Laid over what applies the deployments of a project's copy.
HAND_OVER_DEPLOY = """

from tests.support.warm_commands import command_handed_over

_DEPLOY = command_handed_over(_DEPLOY)
"""
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


class Warm:
    """The process that has imported `libraries`; it listens from the first moment on and ends with this one."""

    def __init__(self, place: Path, env: Mapping[str, str], libraries: Iterable[str] = LIBRARIES) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(place))
            listener.listen(64)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, "serve", str(listener.fileno()), *libraries],
                cwd="/",
                env=dict(env),
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def stop(self) -> None:
        """End it, and with it every command that still runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# -- in the process that someone started


def handed_over(main: Callable[..., int]) -> Callable[..., int]:
    """Return the `main` of a command line, for one that hands stages over where there is who takes them."""

    @functools.wraps(main)
    def hand_over(arguments: Sequence[str] | None = None) -> int:
        if arguments is None and VARIABLE in os.environ and (sys.argv[1:2] in STAGES or _of_one_rank(sys.argv[1:])):
            return run(sys.argv)
        return main(arguments)

    return hand_over


def _of_one_rank(words: Sequence[str]) -> bool:
    """Whether it is the stage of a training in one process."""
    parameters = Path("params.yaml")
    return list(words) == ["train"] and re.search(r"^  ranks: [01]\b", parameters.read_text(), re.MULTILINE) is not None


def commands_handed_over(run: Callable[..., str]) -> Callable[..., str]:
    """Return the `run` of a flow's commands, for one that hands them over where there is who takes them."""

    @functools.wraps(run)
    def hand_over(command: Sequence[str], *rest: Any) -> str:
        of_flows = list(command[1:3]) == ["-m", "dvc"] or tuple(command[1:4]) in _OF_FLOWS
        return run(command_handed_over(command) if of_flows and "train" not in command else command, *rest)

    return hand_over


def command_handed_over(command: Sequence[str]) -> Sequence[str]:
    """Return `PYTHON -m MODULE ...` as a command that hands it over where there is who takes it."""
    return [command[0], "-m", __name__, *command[1:]] if VARIABLE in os.environ else command


def run(words: Sequence[str]) -> int:
    """Let a command run as if it were this process; returns its status, or ends by its signal.

    Args:
        words: `PATH/zerovl COMMAND ...` or `-m MODULE ...`.

    Raises:
        ConnectionError: the process that has the libraries is gone.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(os.environ[VARIABLE])
        request = {"words": list(words), "cwd": os.getcwd(), "env": dict(os.environ)}
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # one that comes now is passed on behind the request
        for number in _PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: connection.send(str(number).encode()))
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        word = connection.recv(64)
    if not word:
        raise ConnectionError(f"{os.environ[VARIABLE]}: the process that was to run {words} is gone")
    status = int(word)
    if status < 0:
        if -status in _PASSED_ON:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


# -- in the process that has the libraries


def _serve(listener: socket.socket, owner: int) -> None:
    """Fork what is asked for, until the other end of `owner` is closed."""
    commands: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: process id, and whoever waits
    while True:
        waiting = [connection for _, connection in commands.values()]
        ready, _, _ = select.select([owner, listener, *commands, *waiting], [], [])
        if owner in ready:
            return
        for ended, (pid, connection) in list(commands.items()):
            if connection in ready:  # a signal to pass on, or nobody waits any more
                os.kill(pid, int(connection.recv(64) or signal.SIGKILL))
            if ended in ready:
                del commands[ended]
                os.close(ended)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with connection, suppress(OSError):
                    connection.send(str(status).encode())
        if listener in ready:
            connection, _ = listener.accept()
            message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
            pid = os.fork()
            if pid == 0:
                _become(json.loads(message), streams)
            for stream in streams:
                os.close(stream)
            commands[os.pidfd_open(pid)] = pid, connection


def _become(request: Mapping[str, Any], streams: Sequence[int]) -> NoReturn:
    """Be the command that was asked for; called in a forked process, which never comes back from here."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        be_fresh(request["env"])
        close_others()
        os.chdir(request["cwd"])
        status = _call(request["words"]) or 0
    except SystemExit as error:
        status = exit_status(error)
    except BaseException:
        traceback.print_exc()
    leave(status)


def _call(words: Sequence[str]) -> int:
    """Run what the words say, with the path of an interpreter that was started with them."""
    module = words[1] if words[0] == "-m" else None
    first = os.getcwd() if module else str(Path(words[0]).resolve().parent)
    sys.path[:] = [first, *_python_path(os.environ), *sys.path]
    importlib.invalidate_caches()
    sys.argv = list(words[1:] if module else words)
    if module:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    main = importlib.import_module("zerovl.cli").main
    return int(getattr(main, "__wrapped__", main)())  # the one below `handed_over`


def _python_path(env: Mapping[str, str]) -> list[str]:
    return list(filter(None, env.get("PYTHONPATH", "").split(os.pathsep)))


def _main(words: Sequence[str]) -> int:
    if words[0] != "serve":
        return run(words)
    # That of the libraries alone: each command has its own checkout on its path.
    sys.path[:] = [place for place in sys.path if place not in _python_path(os.environ)]
    gc.disable()  # among a million objects that stay it would find nothing
    for name in words[2:]:
        importlib.import_module(name)
    assert not logging.root.handlers, "a library has set up the log, which is for each command to do"
    gc.collect()
    gc.enable()
    gc.freeze()  # a collection in a forked process has only its own objects to look at
    _serve(socket.socket(fileno=int(words[1])), 0)
    os._exit(0)  # taking the libraries apart would cost seconds


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
