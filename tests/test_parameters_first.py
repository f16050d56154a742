"""A misspelt key of params.yaml is told before anything large is imported, by every command that reads the file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from zerovl import params_file
from zerovl.params import MachineParams, Params

LARGE = ("torch", "torchvision", "timm", "transformers", "tokenizers", "pyarrow", "boto3", "great_expectations")
COMMANDS = {
    "train": 2,
    "plan": 2,
    "evaluate": 2,
    "prepare": 2,
    "validate": 2,
    "register": 2,
    "search zerovl@production red --images pictures": 2,
    "embed zerovl@production --pairs pairs.csv --images pictures --out out.npz": 2,
    "doctor": 1,
}


EVALUATE = """
import sys
from tests.test_parameters_first import LARGE
from zerovl import cli, cores
from zerovl.distributed import helper_processes
from zerovl.errors import ZeroVLError
def start(*_):
    raise ZeroVLError(f"started behind {sorted(set(LARGE) & set(sys.modules))}")
helper_processes.start, cores.core_count = start, lambda: 2
sys.exit(cli.main(["evaluate"]))
"""


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    status: int
    output: str  # stdout and stderr
    imported: set[str]
    seconds: float  # of CPU, its own children included


def run(*arguments: str, folder: Path) -> Ended:
    """Run Python with a list of what it imports."""
    log, imports = folder / "output.log", folder / "imports.log"
    code = {name: value for name, value in os.environ.items() if name not in ("ZEROVL_STORE", "PREFECT_API_URL")}
    # Python writes what it imports to stderr; so messages go elsewhere.
    with open(log, "wb") as output, open(imports, "wb") as times:
        child = subprocess.Popen(
            [sys.executable, "-X", "importtime", *arguments], cwd=folder, env=code, stdout=output, stderr=times
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    lines = imports.read_text().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = [line for line in lines if not line.startswith("import time:")]
    return Ended(child.returncode, log.read_text() + "\n".join(said), imported, usage.ru_utime + usage.ru_stime)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with one key misspelt; everything else that the commands ask for is there."""
    params_file.write(Params(), tmp_path / "params.yaml")
    text = (tmp_path / "params.yaml").read_text()
    assert text.count("  warmup_fraction: ") == 1
    (tmp_path / "params.yaml").write_text(text.replace("  warmup_fraction: ", "  warmup_fracton: "))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "red.jpg").write_bytes(b"looked at by nobody")
    (tmp_path / "pairs.csv").write_text("image,image_id,caption,caption_id\nred.jpg,0,red,0\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_a_misspelt_key_is_told_before_anything_large_is_imported(folder: Path, command: str) -> None:
    bare = run("-c", "pass", folder=folder)
    ended = run("-m", "zerovl.cli", *command.split(), folder=folder)
    times = f"{ended.seconds:.2f} s of CPU, {ended.seconds - bare.seconds:.2f} s more than Python alone"
    print(f"{command.split()[0]}: {times}")
    assert "params.yaml" in ended.output
    assert re.search(r"train\.warmup_fracton: unknown key .*correct its spelling", ended.output)
    assert "Traceback" not in ended.output
    assert ended.status == COMMANDS[command], ended.output
    assert "zerovl.params_file" in ended.imported, "the list of imports is not one"
    assert not ended.imported & set(LARGE), times


@pytest.mark.parametrize("command", ["train", "evaluate", "register", "validate", "sweep train.lr=1e-3,3e-3"])
def test_a_missing_file_is_told_before_anything_large_is_imported(tmp_path: Path, command: str) -> None:
    params_file.write(Params(), tmp_path / "params.yaml")
    ended = run("-m", "zerovl.cli", *command.split(), folder=tmp_path)
    missing = "git has no commit here" if command.startswith("sweep") else "data/manifest/manifest.json: no such file"
    assert missing in ended.output
    assert ended.status == 2
    assert not ended.imported & set(LARGE)


def test_evaluate_starts_its_helpers_before_anything_large_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    params_file.write(Params(machine=MachineParams(ranks=2)), tmp_path / "params.yaml")
    for needed in ("data/manifest/manifest.json", "model/config.json"):
        (tmp_path / needed).parent.mkdir(parents=True)
        (tmp_path / needed).touch()
    ended = run("-c", EVALUATE, folder=tmp_path)
    assert "zerovl evaluate: started behind []" in ended.output


def test_a_key_that_comes_twice_is_named_with_its_lines(folder: Path) -> None:
    text = (folder / "params.yaml").read_text().replace("  warmup_fracton: ", "  warmup_fraction: ")
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines, 1) if line.startswith("  lr: "))
    lines.insert(first, "  lr: 0.5")
    (folder / "params.yaml").write_text("\n".join(lines) + "\n")
    ended = run("-m", "zerovl.cli", "train", folder=folder)
    assert ended.status == 2
    assert "zerovl train: params.yaml: " in ended.output
    assert f"line {first + 1}: key 'lr' stands in line {first} already; keep one of them" in ended.output
    assert not ended.imported & set(LARGE)
