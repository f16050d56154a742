"""`zerovl COMMAND`: the entry of the command line; the commands are in `command_line/`."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence

from zerovl import heap, interpreter
from zerovl.command_line import models, pipeline, project, releases
from zerovl.command_line.parts import Parser
from zerovl.errors import ZeroVLError
from zerovl.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 done, 2 an error with a message, 130 after Ctrl-C, 141 where whoever read the output has gone, as `head` does.

    Args:
        arguments: None in a process of its own, which has them on its command line.
    """
    return interpreter.of_its_own(_answer) if arguments is None else _answer(arguments)


def _answer(arguments: Sequence[str] | None = None) -> int:
    try:
        try:
            return _main(arguments)
        finally:
            if arguments is None:
                _end_quietly_from_now_on()
            sys.stdout.flush()  # here, not when Python ends: there a broken pipe cannot be caught
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
        return 128 + signal.SIGPIPE


def _end_quietly_from_now_on() -> None:
    """Let Ctrl-C end this process at once: while Python ends, it would print a traceback of whatever was cleaning up.

    A SIGINT that is ignored, as a shell's `&` has it, stays so.
    """
    main_thread = threading.current_thread() is threading.main_thread()  # others may not set it
    if main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _reader_is_gone() -> bool:
    """Whether stdout is the pipe that broke; others may belong to a store or a worker."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _main(arguments: Sequence[str] | None) -> int:
    from zerovl import log

    if arguments is None:  # a process of its own
        from zerovl import experiment_copy

        experiment_copy.enter(sys.argv[1:])
    parsed = _parser().parse_args(arguments)
    if arguments is None:
        (heap.prepare_training if parsed.command == "train" else heap.keep_freed)()  # one rank trains in this process
    log.setup()
    try:
        return parsed.run(parsed) or 0
    except ZeroVLError as error:
        print(f"zerovl {parsed.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        from zerovl import disk_errors

        said = disk_errors.sentence(error, getattr(parsed, "out", None) or "")
        if not said:
            raise
        print(f"zerovl {parsed.command}: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="zerovl", description="Train, version and release image-text models by the ZeroVL recipe.")
    parser.add_argument("--version", action="version", version=f"zerovl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (pipeline, project, models, releases):
        group.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
