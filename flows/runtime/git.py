"""git as flows call it: without hooks and questions, and at its end as soon as the flow is."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from flows.runtime.errors import FlowError

NETWORK_SECONDS = 120.0  # for a command that asks a remote
_LOCKS_SECONDS = 2.0  # in which git takes its lock files away
_NO_QUESTIONS = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
_NOBODY = ("zerovl flows", "flows@localhost")


class CheckoutError(FlowError):
    """A checkout cannot be made or used; the text says what git refused and why."""


def git(folder: Path, *words: str, environment: Mapping[str, str] | None = None, seconds: float | None = None) -> str:
    """Run git without the user's hooks (one by DVC would check data out) and without questions; returns its output.

    Raises:
        CheckoutError: git failed, or did not end within `seconds`.
        BaseException: what was raised in this process meanwhile (a cancellation), after git and what it started to
            reach a remote, which may never answer, have ended.
    """
    said = f"{folder}: `git {' '.join(words)}` failed"
    process: subprocess.Popen[str] | None = None
    try:
        with _signals_wait():  # else a cancellation meanwhile left a git behind that nobody knows
            process = subprocess.Popen(
                ["git", "-c", "core.hooksPath=/dev/null", *words],
                cwd=folder,
                env={**_NO_QUESTIONS, **os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        output, complaint = process.communicate(timeout=seconds)
    except BaseException as error:
        if process:
            _end(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise CheckoutError(f"{said}: no answer within {seconds:.0f} s") from None
        raise
    if process.returncode:
        raise CheckoutError(f"{said}: {(complaint or output).strip()}")
    return output.strip()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let SIGINT and SIGTERM that come in the block do what they do at its end; only the main thread hears of them."""
    came: list[int] = []
    own = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    own = {each: handler for each, handler in own.items() if callable(handler)}  # one that is ignored is handed on
    if threading.current_thread() is not threading.main_thread():
        own = {}
    for each in own:
        signal.signal(each, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for each, handler in own.items():
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)


def _end(process: subprocess.Popen[str]) -> None:
    """End git and its helpers: ssh and git-remote-https outlive a git that is killed, and wait for minutes."""
    with process:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOCKS_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def identity(folder: Path) -> tuple[str, str]:
    """Return name and address for commits and tags, which a service's account may not have set."""

    def setting(key: str, variable: str, fallback: str) -> str:
        done = subprocess.run(["git", "config", key], cwd=folder, capture_output=True, text=True, check=False)
        return os.environ.get(variable) or done.stdout.strip() or fallback

    name = setting("user.name", "GIT_AUTHOR_NAME", _NOBODY[0])
    return name, setting("user.email", "GIT_AUTHOR_EMAIL", _NOBODY[1])
