"""The interpreter of `fork_server`: it has imported everything, and forks each process that it is asked for.

Ranks are forked too: by the launcher, which stays their parent, each in a session of its own as torch has it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass

from tests.support.forked_ranks import become, fork_ranks


@dataclass(frozen=True)
class _Running:
    """A forked process: who asked for it, and where its end is told."""

    pid: int
    asked: socket.socket
    told: int


def serve(listener: socket.socket) -> None:
    """Fork what is asked for until nobody is connected; what one has asked for ends with its connection."""
    running: dict[int, _Running] = {}  # by pidfd
    connections: list[socket.socket] = []
    while True:
        # Whoever starts this interpreter connects at once: without a connection there is one to come, or none any more.
        ready, _, _ = select.select([listener, *connections, *running], [], [], None if connections else 0)
        if not ready and not connections:
            return
        for one in ready:
            if one is listener:
                connection, _ = listener.accept()
                connections.append(connection)
                with suppress(OSError):  # it has gone, which the next look tells
                    connection.send(b"1")
            elif isinstance(one, int):
                its = running.pop(one)
                os.close(one)
                status = os.waitstatus_to_exitcode(os.waitpid(its.pid, 0)[1])
                with suppress(OSError):  # nobody waits for it
                    os.write(its.told, str(status).encode())
                os.close(its.told)
            elif not _answer(one, running):
                connections.remove(one)
                for its in running.values():
                    if its.asked is one:
                        os.kill(its.pid, signal.SIGKILL)
                one.close()


def _answer(connection: socket.socket, running: dict[int, _Running]) -> bool:
    """Fork a process as a message says; False where there is none, as whoever sends them has gone."""
    try:
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    except ConnectionError:
        return False
    if not message:
        return False
    told, out, err = descriptors
    pid = os.fork()
    if pid == 0:
        become(json.loads(message), out, err)
    os.close(out)
    if err != out:
        os.close(err)
    with suppress(OSError):
        os.write(told, str(pid).encode())
    running[os.pidfd_open(pid)] = _Running(pid, connection, told)
    return True


def _import_everything() -> None:
    gc.disable()  # among a million objects that stay it would find nothing
    with suppress(ImportError):  # the engine's tests run without DVC too: `make test-oldest`
        import dvc.repo  # noqa: F401, which dvclive imports late
        import dvclive  # noqa: F401
    import torch.distributed.run  # noqa: F401
    import transformers.models.bert.modeling_bert  # noqa: F401

    import tests.support.fork_server  # noqa: F401, as what is forked may ask for processes of its own
    import zerovl.cli
    import zerovl.training.launch  # noqa: F401
    from zerovl import code_closure

    code_closure.digests("train")  # a second of every start, and kept by the module
    gc.collect()
    gc.enable()
    gc.freeze()  # a collection in a forked process has only its own objects to look at
    frozen = gc.get_freeze_count()
    gc.get_freeze_count = lambda: frozen  # it counts one by one, in each training: a tenth of its start
    fork_ranks()


def _main(descriptor: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this one
    _import_everything()
    serve(socket.socket(fileno=descriptor))
    os._exit(0)  # taking the libraries apart would cost a second


if __name__ == "__main__":
    _main(int(sys.argv[1]))
