"""Commands of a flow: what is heard of them, and that they end whatever happens to whom."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flows.runtime import process
from flows.runtime.process import Bar, CommandError
from flows.runtime.told_to_end import told

PATIENCE = 300.0  # seconds, where others compute on the same cores
# Two generations, the younger one in a session of its own, as ranks and loader workers are.
FAMILY = """
import pathlib, signal, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
grandchild = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True
)
def save(*_):
    time.sleep(0.5)
    print("checkpoint saved", flush=True)
    (folder / "saved").write_text("")
    grandchild.kill()
    sys.exit(3)
signal.signal(signal.SIGINT, save if sys.argv[2] == "saves" else signal.SIG_IGN)
(folder / "pids").write_text(f"{__import__('os').getpid()} {grandchild.pid}")
print("ready", flush=True)
time.sleep(300)
"""


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[Bar] = []
        self.ready = threading.Event()

    def line(self, text: str) -> None:
        self.lines.append(text)
        if text == "ready":
            self.ready.set()

    def bar(self, bar: Bar) -> None:
        self.bars.append(bar)


class Cancelling(Heard):
    """Hears of a cancellation when the command is ready."""

    def __init__(self, cancellation: type[BaseException]) -> None:
        super().__init__()
        self.cancellation = cancellation

    def line(self, text: str) -> None:
        super().line(text)
        if text == "ready":
            raise self.cancellation


def run(code: str, folder: Path, heard: Heard, *arguments: str) -> str:
    return process.run([sys.executable, "-c", code, *arguments], folder, {}, heard)


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def pids_of(folder: Path) -> list[int]:
    deadline = time.monotonic() + PATIENCE
    while not (folder / "pids").exists() or not (folder / "pids").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while alive(pids):
        assert time.monotonic() < deadline, f"still there: {alive(pids)}"
        time.sleep(0.1)


def test_lines_and_bars(tmp_path: Path) -> None:
    heard = Heard()
    code = """
    import sys
    from tqdm import tqdm
    bar = tqdm(total=4, desc="train", unit="step", mininterval=0)
    for step in range(4):
        bar.set_postfix(loss=f"{4 - step:.3f}", refresh=False)
        bar.update()
    bar.close()
    print("a line | with a bar", file=sys.stderr)
    print("train:  18%|##   | 130/720 [00:04<02:03,  4.79step/s, loss=2.1]ERROR: train exited with -9")
    print("\\033[31mred\\033[0m")
    """
    output = run(textwrap.dedent(code), tmp_path, heard)
    assert heard.lines == ["a line | with a bar", "ERROR: train exited with -9", "red"]
    assert output == "\n".join(heard.lines)
    assert heard.bars.pop() == Bar("train", 18.0, "130/720, 00:04<02:03, 4.79step/s, loss=2.1")
    assert heard.bars[-1].title == "train"
    assert heard.bars[-1].percent == 100
    assert "loss=1.000" in heard.bars[-1].text
    assert heard.bars[-1].text.startswith("4/4, ")


def test_a_failure_names_the_command_its_status_and_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"ended with status 7:\nline 5\n") as caught:
        run("import sys\nfor i in range(20): print('line', i)\nsys.exit(7)", tmp_path, Heard())
    assert str(caught.value).endswith("\nline 19")
    with pytest.raises(CommandError, match="ended with signal 9"):
        run("import os; os.kill(os.getpid(), 9)", tmp_path, Heard())
    with pytest.raises(CommandError, match="ended with status 255"):
        run("import sys; sys.exit(255)", tmp_path, Heard())


@pytest.mark.parametrize(("raised", "is_told"), [(KeyboardInterrupt, True), (ValueError, False)])
def test_from_the_moment_that_it_is_told_to_end_that_is_known(
    tmp_path: Path, raised: type[BaseException], is_told: bool
) -> None:
    """Also after the command has ended: what is still to be said must not be cut short."""

    class Asking(Cancelling):
        def line(self, text: str) -> None:
            known.append((text, told.is_set()))
            super().line(text)

    known: list[tuple[str, bool]] = []
    with pytest.raises(raised):
        run(FAMILY, tmp_path, Asking(raised), str(tmp_path), "saves")
    assert known == [("ready", False), ("checkpoint saved", is_told)]
    assert told.is_set() == is_told


def test_a_cancellation_lets_the_command_save_and_hears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(BaseException):
        pass

    heard = Cancelling(Cancelled)
    with pytest.raises(Cancelled):
        run(FAMILY, tmp_path, heard, str(tmp_path), "saves")
    assert (tmp_path / "saved").exists()
    assert heard.lines[-1] == "checkpoint saved"
    assert not alive(pids_of(tmp_path))


@pytest.mark.parametrize("again", [OSError, SystemExit])
def test_what_it_saves_is_heard_to_its_end_whoever_disturbs(tmp_path: Path, again: type[BaseException]) -> None:
    """A second signal, or a log that cannot be written; a second SIGINT would cut short what is saved."""

    class Disturbed(Cancelling):
        def line(self, text: str) -> None:
            super().line(text)
            raise again

    heard = Disturbed(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(FAMILY.replace('saved", flush', 'saved\\nand more", flush'), tmp_path, heard, str(tmp_path), "saves")
    assert heard.lines == ["ready", "checkpoint saved", "and more"]
    assert (tmp_path / "saved").exists()


def test_a_command_without_a_handler_ends_by_the_signal_and_not_by_the_end_of_patience(tmp_path: Path) -> None:
    heard = Cancelling(KeyboardInterrupt)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a worker that a script started in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            # Short sleeps: a signal that comes just before one begins is looked at when it ends.
            run("import time; print('ready', flush=True)\nwhile True: time.sleep(0.1)", tmp_path, heard)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard.lines[-1] == "KeyboardInterrupt"  # SIGKILL leaves no word


def test_what_ignores_the_signal_is_killed_after_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(process.GRACE_VARIABLE, "1")

    class Cancelling(Heard):
        def line(self, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(FAMILY, tmp_path, Cancelling(), str(tmp_path), "ignores")
    assert not alive(pids_of(tmp_path))


ENGINE = """
import sys
from pathlib import Path
from test_process import FAMILY, Heard, run
run(FAMILY, Path(sys.argv[1]), Heard(), sys.argv[1], sys.argv[2])
"""


def start_engine(folder: Path, ending: str, grace: str = "1") -> subprocess.Popen[bytes]:
    root = Path(process.__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(folder), ending],
        env={**os.environ, "PYTHONPATH": f"{root}:{Path(__file__).parent}", process.GRACE_VARIABLE: grace},
        start_new_session=True,
    )


@pytest.mark.parametrize("ending", ["saves", "ignores"])
def test_a_killed_flow_leaves_nothing(tmp_path: Path, ending: str) -> None:
    # What saves ends once it has, however slow the machine is.
    engine = start_engine(tmp_path, ending, grace="60" if ending == "saves" else "1")
    pids = pids_of(tmp_path)
    guard = psutil.Process(engine.pid).children()[0].pid
    engine.kill()
    engine.wait()
    wait_until_gone([*pids, guard])
    assert (tmp_path / "saved").exists() == (ending == "saves")


def test_a_killed_guard_leaves_nothing(tmp_path: Path) -> None:
    engine = start_engine(tmp_path, "saves")
    pids = pids_of(tmp_path)
    psutil.Process(engine.pid).children()[0].kill()
    wait_until_gone(pids)
    assert engine.wait(PATIENCE) != 0


def test_orphans_of_a_killed_command_end_too(tmp_path: Path) -> None:
    engine = start_engine(tmp_path, "saves")
    pids = pids_of(tmp_path)
    os.kill(pids[0], signal.SIGKILL)
    wait_until_gone(pids)
    assert engine.wait(PATIENCE) != 0
