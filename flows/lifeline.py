"""A flow that a worker started ends with its worker; otherwise it would go on where nobody can cancel it."""

from __future__ import annotations

import os
import signal
import threading
import time

_POLL = 1.0  # seconds


def follow_worker() -> None:
    """Send SIGTERM to this process when its parent is gone, if it is a run that a worker started."""
    if "PREFECT__FLOW_RUN_ID" not in os.environ:
        return  # from a terminal: `nohup` and a closed window are the user's to decide on
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
