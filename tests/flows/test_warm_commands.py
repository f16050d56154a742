"""A command that was handed over does what one does that was started: streams, folder, path, status, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.warm_commands import HAND_OVER, VARIABLE, Warm, command_handed_over, commands_handed_over

PATIENCE = 120  # seconds
# A command line as a project's copy has it; what it does is what its words say.
COMMAND_LINE = """
import json, os, signal, sys

def main(arguments=None):
    what = sys.argv[2] if sys.argv[2:] else "say"
    if what == "say":
        print("is", os.getpid(), flush=True)
    if what == "show":
        handlers = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
        path = [os.path.realpath(place) for place in sys.path]  # .venv may be a link
        shown = {"folder": os.getcwd(), "words": sys.argv, "path": path, "env": dict(os.environ), "file": __file__}
        print(json.dumps({**shown, "handlers": handlers, "asked": sys.stdin.read()}))
        print("said aside", file=sys.stderr)
    if what == "status":
        return int(sys.argv[3])
    if what == "leave":
        sys.exit("left with a word")
    if what == "raise":
        raise ValueError("raised")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait":
        try:
            print("waits", os.getpid(), flush=True)
            signal.pause()
        except KeyboardInterrupt:
            print("interrupted")
            return 7
    return 0

if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Tests that a script started in its background have SIGINT ignored, and so would have what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "zerovl").mkdir()
    (folder / "zerovl" / "__init__.py").touch()
    (folder / "zerovl" / "cli.py").write_text(COMMAND_LINE + HAND_OVER)
    (folder / "module.py").write_text("import os, sys\nprint(os.getcwd(), sys.argv, sys.path, __name__)\nsys.exit(5)\n")
    return folder


@pytest.fixture(scope="module")
def warm(project: Path) -> Iterator[dict[str, str]]:
    """The variable with which commands are handed over."""
    process = Warm(project / "warm", _env(project), libraries=["csv"])
    yield {VARIABLE: str(project / "warm")}
    process.stop()


def _env(project: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(project), str(ROOT)]), **more}


def _start(project: Path, env: dict[str, str], *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [str(Path(sys.executable).with_name("zerovl")), *words]
    return subprocess.Popen(command, cwd=project, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _run(project: Path, env: dict[str, str], *words: str) -> tuple[int, str, str]:
    """Status and output; of a traceback the last line, as it names other files."""
    child = _start(project, env, *words)
    out, err = child.communicate("what is asked", timeout=PATIENCE)
    return child.returncode, out, "".join(err.splitlines(keepends=True)[-1:])


def test_it_has_the_streams_the_folder_and_the_path_of_whoever_started_it(project: Path, warm: dict[str, str]) -> None:
    started = _run(project, _env(project), "evaluate", "show", "a word")
    handed = _run(project, _env(project, OF_THIS_COMMAND="1", **warm), "evaluate", "show", "a word")
    assert (handed[0], handed[2]) == (started[0], started[2]) == (0, "said aside\n")
    shown, expected = json.loads(handed[1]), json.loads(started[1])
    assert shown["env"].pop("OF_THIS_COMMAND") == "1"
    assert shown["env"].pop(VARIABLE) == warm[VARIABLE]
    assert shown == expected
    assert expected["file"] == str(project / "zerovl" / "cli.py")
    assert expected["asked"] == "what is asked"


@pytest.mark.parametrize("words", [["status", "0"], ["status", "3"], ["leave"], ["raise"], ["killed"]])
def test_it_ends_with_the_same_status(project: Path, warm: dict[str, str], words: list[str]) -> None:
    started = _run(project, _env(project), "register", *words)
    assert _run(project, _env(project, **warm), "register", *words) == started


def test_a_module_runs_as_the_main_one(project: Path, warm: dict[str, str]) -> None:
    started, handed = (
        subprocess.run(
            [sys.executable, *before, "-m", "module", "word"],
            cwd=project,
            env=_env(project, **warm),
            capture_output=True,
            text=True,
        )
        for before in ([], ["-m", "tests.support.warm_commands"])
    )
    assert started.returncode == handed.returncode == 5
    assert handed.stdout == started.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_it(project: Path, warm: dict[str, str], number: int) -> None:
    ends = []
    for more in ({}, warm):
        child = _start(project, _env(project, **more), "validate", "wait")
        assert child.stdout
        word, pid = child.stdout.readline().split()
        assert (word, int(pid) == child.pid) == ("waits", not more)
        child.send_signal(number)
        out, err = child.communicate(timeout=PATIENCE)  # until nobody has the streams any more
        ends.append((child.returncode, out, err))
    assert ends[1] == ends[0]


def test_what_tests_kill_is_not_handed_over(project: Path, warm: dict[str, str]) -> None:
    for command in ("train", "code"):
        child = _start(project, _env(project, **warm), command, "wait")
        assert child.stdout
        assert child.stdout.readline() == f"waits {child.pid}\n"
        child.kill()
        child.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("ranks", [0, 1, 2, 10])
def test_a_training_is_handed_over_if_it_is_one_process(project: Path, warm: dict[str, str], ranks: int) -> None:
    (project / "params.yaml").write_text(f"machine:\n  ranks: {ranks}\n")
    child = _start(project, _env(project, **warm), "train")
    assert child.stdin
    assert child.stdout
    assert (child.stdout.readline() == f"is {child.pid}\n") == (ranks > 1)
    child.communicate(timeout=PATIENCE)


def test_commands_of_a_flow_are_handed_over_but_for_the_dvc_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    run = commands_handed_over(lambda command, folder: " ".join([*command, folder]))
    push, train = ["python", "-m", "dvc", "push"], ["python", "-m", "dvc", "repro", "-s", "train"]
    recipe = ["python", "-m", "zerovl.cli", "recipe", "params.yaml"]
    monkeypatch.delenv(VARIABLE, raising=False)
    assert run(push, "here") == "python -m dvc push here"
    assert command_handed_over(push) == push
    monkeypatch.setenv(VARIABLE, "a socket")
    assert run(push, "here") == "python -m tests.support.warm_commands -m dvc push here"
    assert run(recipe, "here") == "python -m tests.support.warm_commands -m zerovl.cli recipe params.yaml here"
    assert run(train, "here") == "python -m dvc repro -s train here"
    assert run(["python", "-m", "zerovl.cli", "train"], "here") == "python -m zerovl.cli train here"
    assert command_handed_over(push) == ["python", "-m", "tests.support.warm_commands", "-m", "dvc", "push"]


def test_whoever_waits_is_told_that_nobody_runs_it_any_more(project: Path) -> None:
    process = Warm(project / "gone", _env(project), libraries=[])
    child = _start(project, _env(project, **{VARIABLE: str(project / "gone")}), "prepare", "wait")
    assert child.stdout
    child.stdout.readline()
    process.stop()
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out) == (1, "")
    assert "the process that was to run" in err
