"""The command line itself: thin, quick to answer, errors without tracebacks."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.registries import promote, publish
from zerovl import cli
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore


def zerovl(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zerovl.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from zerovl import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch','timm','transformers','numpy','pydantic','boto3','PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("prepare", "validate", "train", "evaluate", "register", "registry", "import-checkpoint", "doctor"):
        assert f"\n    {command}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(["--help"], ""), (["registry", "--store", "store", "list"], ""), (["registry", "--store", "store", "list"], "1")],
    ids=["help", "list", "list-unbuffered"],
)
def test_a_reader_that_goes_ends_a_command_without_a_traceback(
    arguments: list[str], unbuffered: str, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "zerovl.cli", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    try:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path, env=environment
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(("ignored", "status"), [(False, -signal.SIGINT), (True, 0)], ids=["heard", "ignored"])
def test_an_interrupt_while_python_ends_prints_no_traceback(ignored: bool, status: int) -> None:
    code = "import atexit, os, signal, sys; from zerovl import cli\n"
    code += "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    # Named in both cases: who runs the tests in the background of a script hands SIG_IGN on.
    code += f"signal.signal(signal.SIGINT, signal.{'SIG_IGN' if ignored else 'default_int_handler'})\n"
    code += "sys.argv = ['zerovl', '--version']; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.startswith("zerovl ")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["lines", "json"])
def test_so_does_a_history(form: list[str], tmp_path: Path) -> None:
    registry = Registry(FolderStore(tmp_path / "store"))
    promote(registry, publish(registry, {"config.json": b"{}"}))
    test_a_reader_that_goes_ends_a_command_without_a_traceback(
        ["registry", "--store", "store", "history", "zerovl@production", *form], "", tmp_path
    )


def test_a_pipe_that_is_not_the_output_is_an_error_like_others(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_arguments: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "_main", broken)
    with pytest.raises(BrokenPipeError):
        cli.main(["summary"])


def test_train_help_explains_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    printed = capsys.readouterr().out
    for words in ("examples:", "torchrun --nnodes 2", "saves a checkpoint", "dvc repro"):
        assert words in printed


def test_user_errors_have_no_traceback(tmp_path: Path) -> None:
    done = zerovl("prepare", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("zerovl prepare: params.yaml: no such file")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["trian"], "'trian' is not known; did you mean 'train'?"),
        (["registry", "shwo"], "'shwo' is not known; did you mean 'show'?"),
        (["export", "model", "--out", "o", "--to", "hugging_face"], "did you mean 'hugging-face'?"),
        (["xyz"], "choose from"),
    ],
)
def test_a_misspelt_command_is_answered_with_the_one_that_is_meant(
    words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_an_option_may_stand_anywhere(place: int, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["demo", "train.seed=1", "train.epochs=2"]
    parsed = cli._parser().parse_args(["recipe", *words[:place], "--out", "o.yaml", *words[place:]])
    assert (parsed.recipe, parsed.overrides, parsed.out) == (words[0], words[1:], "o.yaml")
    compared = cli._parser().parse_args(["compare", "--json", "o.json", "a", "--out", "o.html", "b"])
    assert (compared.references, compared.json, compared.out) == (["a", "b"], "o.json", "o.html")
    ended = cli._parser().parse_args(["recipe", "--out", "o.yaml", "--", "-own.yaml", "--out=x"])
    assert (ended.recipe, ended.overrides, ended.out) == ("-own.yaml", ["--out=x"], "o.yaml")
    for wrong in (
        ["recipe"],
        ["recipe", "--out", "o.yaml"],
        ["compare", "--out", "o.html"],
        ["recipe", "demo", "--ot", "x"],
    ):
        with pytest.raises(SystemExit):
            cli._parser().parse_args(wrong)
    printed = capsys.readouterr().err
    assert printed.count("usage: zerovl recipe [-h] [--out FILE] FILE [KEY=VALUE ...]") == 2
    assert printed.count("the following arguments are required: FILE") == 2
    assert "the following arguments are required: REFERENCE" in printed
    assert "unrecognized arguments: --ot" in printed


def test_module_of_every_command_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command reaches its own code: run in an empty folder, none may end in a traceback of imports."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}")
    for command in ("demo-data", "prepare", "validate", "train", "evaluate", "register", "fetch-weights"):
        assert cli.main([command]) == 2
    assert cli.main(["summary"]) == 2
    assert cli.main(["score", "absent.npz"]) == 2
    assert cli.main(["embed", "absent", "--pairs", "p.csv", "--images", ".", "--out", "o.npz"]) == 2
    assert cli.main(["search", "absent", "a query", "--images", "."]) == 2
    assert cli.main(["import-checkpoint", "no.pth", "--image-tower", "x", "--text-tower", "y", "--out", "o"]) == 2
    assert cli.main(["export", "absent", "--to", "onnx", "--out", "o"]) == 2
    assert cli.main(["import", "absent", "--out", "o"]) == 2
    assert cli.main(["registry", "show", "zerovl@production"]) == 2
