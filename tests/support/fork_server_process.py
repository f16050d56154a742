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

from tests.support.forked_ranks import become, fork_ranks


def _serve(requests: socket.socket) -> None:
    running: dict[int, tuple[int, int]] = {}  # by pidfd: process id, and where its end is told
    while True:
        ready, _, _ = select.select([requests, *running], [], [])
        for one in ready:
            if one is not requests:
                pid, told = running.pop(one)
                os.close(one)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(OSError):  # nobody waits for it
                    os.write(told, str(status).encode())
                os.close(told)
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 3)
            if not message:
                return
            told, out, err = descriptors
            pid = os.fork()
            if pid == 0:
                become(json.loads(message), out, err)
            os.close(out)
            if err != out:
                os.close(err)
            os.write(told, str(pid).encode())
            running[os.pidfd_open(pid)] = pid, told


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
    from zerovl.processes import die_with_parent

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this one
    _import_everything()
    _serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    _main(int(sys.argv[1]))
