"""A process of its own ends quickly, and yet all that waits for its end is done."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

COMMAND = """
import atexit, gc, sys, threading, time
from zerovl import interpreter

class Slow:
    def __del__(self):
        print("taken apart")

kept = Slow()

def command():
    assert gc.get_threshold()[0] > 700
    atexit.register(print, "registered in it")
    threading.Thread(target=lambda: (time.sleep(0.3), print("its thread"))).start()
    sys.stdout.write("no end of line ")
    {ends}

sys.exit(interpreter.of_its_own(command))
"""


def run(ends: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format(ends=ends)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_its_end_waits_for_threads_and_for_what_was_registered() -> None:
    assert run("return 3") == (3, ["no end of line its thread", "registered in it"], "")


@pytest.mark.parametrize(
    ("ends", "status", "shown"), [("raise ValueError('x')", 1, "ValueError: x"), ("exit(4)", 4, "")]
)
def test_where_it_raises_python_ends_as_always(ends: str, status: int, shown: str) -> None:
    code, said, errors = run(ends)
    assert code == status
    assert said == ["no end of line its thread", "registered in it", "taken apart"]
    assert errors.strip().endswith(shown)


def test_so_it_does_where_others_wait_for_its_end() -> None:
    before = 'import atexit; atexit.register(print, "registered before")'
    done = subprocess.run(
        [sys.executable, "-c", before + COMMAND.format(ends="return 3")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout.splitlines()[-2:] == ["registered before", "taken apart"]


@pytest.mark.parametrize("entry", ["zerovl.cli", "zerovl.training.worker"])
def test_nothing_is_registered_by_what_an_entry_imports(entry: str) -> None:
    """Else the processes that import the most would end slowly."""
    code = f"import atexit, sys, {entry}; sys.exit(atexit._ncallbacks() + ('torch' in sys.modules))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
