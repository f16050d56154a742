"""The flow `notify`: tells people by a command of theirs what the automations "zerovl: notice" found.

`ZEROVL_NOTIFY` in the worker's environment is the command, for example `mail -s "$ZEROVL_SUBJECT" team@example.com`.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from prefect import flow

from flows import command, stages
from flows.runtime import failure_log, notice_setting
from flows.runtime.errors import FlowError

_SECONDS = 60.0  # for a mail server that does not answer


class NoticeError(FlowError):
    """A notice did not reach anybody; the text says why."""


@flow(name="notify")
def notify(subject: str, text: str) -> None:
    """Run the command of `ZEROVL_NOTIFY` with the text at its input.

    Args:
        subject: a line, in the command's environment as ZEROVL_SUBJECT
        text: what happened, at the command's standard input and in its environment as ZEROVL_TEXT
    """
    failure_log.install()
    run_command(subject, text)


@stages.stage_task("run notice command", "Runs the command of ZEROVL_NOTIFY", retries=3)
def run_command(subject: str, text: str) -> None:
    """Run the command; what came with the notice is never part of its words.

    Raises:
        NoticeError: there is no command, or it failed.
    """
    words = notice_setting.command()
    if words is None:
        raise NoticeError(
            f"{notice_setting.VARIABLE} is not a command in this worker's environment; set it there, or call "
            "`make deploy` with an address, so that the server tells people itself"
        )
    environment = {**os.environ, "ZEROVL_SUBJECT": subject, "ZEROVL_TEXT": text}
    # Its words may hold a secret, and what is raised here is in the log and in the run's state.
    name = f"the command of {notice_setting.VARIABLE}"
    with subprocess.Popen(
        ["/bin/sh", "-c", words], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, complaint = process.communicate(text, timeout=_SECONDS)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the shell, and all that it started
            if isinstance(error, subprocess.TimeoutExpired):
                raise NoticeError(f"{name} did not end within {_SECONDS:g} s") from None
            raise
    if process.returncode:
        raise NoticeError(f"{name} ended with status {process.returncode}: {(complaint or said).strip()}")


if __name__ == "__main__":
    command.main(notify)
