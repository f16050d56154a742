"""Helpers as `zerovl.distributed.helpers` starts them, forked from a process that has imported all they need.

`test_sharing.py` starts one as users' are; a second import of torch and transformers would show nothing more.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from pathlib import Path

from tests.support.fork_server import Forked, server
from zerovl.distributed.helpers import help_with


def start(module: str, folder: Path, rank: int, count: int) -> Forked:
    """Start a helper, in place of `helper_processes.start`."""
    helper = server().start(f"{__name__}:main", module, str(folder), str(rank), str(count), merge=True)
    assert helper.stdout is not None
    threading.Thread(target=helper.stdout.read, daemon=True).start()  # a full pipe would hold it up
    return helper


def main() -> int:
    """Be the helper; `module` has what it does as `_help`."""
    module, *places = sys.argv[1:]
    sys.argv[1:] = [*places, str(os.getppid())]
    return help_with(importlib.import_module(module)._help)
