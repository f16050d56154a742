"""A pool of processes: what is left to read where its owner is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

# In a file, since workers import the main module again.
_KILLED = """
import os, signal
from zerovl.processes import worker_pool

if __name__ == "__main__":
    before = os.environ.get("PYTHONWARNINGS")
    with worker_pool(1) as pool:
        pool.submit(abs, -1).result()
        print("as before" if os.environ.get("PYTHONWARNINGS") == before else "changed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nobody_warns_of_what_is_removed_after_a_kill(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    code = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=code, capture_output=True, text=True, check=False)
    assert done.returncode == -9
    assert (done.stdout, done.stderr) == ("as before\n", "")
