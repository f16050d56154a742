"""`zerovl doctor` as a whole: each check told, none hidden by another, what is heavy last."""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from zerovl.commands import doctor, machine_checks, params_checks


def levels(printed: str) -> dict[str, str]:
    """Subject -> level."""
    lines = [line.split(maxsplit=2) for line in printed.splitlines()]
    return {line[1]: line[0] for line in lines if line[0] in ("ok", "note", "FAIL")}


def test_a_machine_that_is_ready(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "registry").mkdir()
    assert doctor.run(project / "params.yaml") == 0
    printed = capsys.readouterr().out
    assert printed.endswith("\nno problems found\n")
    found = levels(printed)
    assert set(found) == {"python", "torch", "torchvision", "gpu", "disk", "params", "git", "dvc", "store", "prefect"}
    assert "FAIL" not in found.values()
    assert found["store"] == "ok"
    assert not list((project / "registry").glob("probe*"))


def test_everything_missing_is_reported_without_a_crash(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] in ("torch", "boto3", "pydantic", "yaml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr("zerovl.commands.machine_checks.shutil.which", lambda command, path=None: None)
    monkeypatch.setattr("zerovl.commands.machine_checks.shutil.disk_usage", lambda folder: 1 / 0)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert doctor.run(project / "params.yaml") == 1
    printed = capsys.readouterr().out
    found = levels(printed)
    for subject in ("torch", "disk", "git", "dvc", "prefect"):
        assert found[subject] == "FAIL", subject
    assert found["python"] == found["params"] == "ok"
    assert printed.endswith("\n5 to fix\n")


@pytest.mark.parametrize("text", ["train: {lrr: 1}", None], ids=["wrong", "missing"])
def test_what_the_parameters_name_is_looked_at_once_they_are_right(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    path = project / "params.yaml"
    path.unlink()
    if text:
        path.write_text(text)
    monkeypatch.setattr(machine_checks, "check_torch", lambda: pytest.fail("torch is imported for nothing"))
    assert doctor.run(path) == 1
    printed = capsys.readouterr().out
    found = levels(printed)
    assert {subject for subject, level in found.items() if level == "FAIL"} == {"params"}
    left = ("inputs", "gate", "store", "copies", "shards", "torch")
    assert set(found) == {"python", "params", "disk", "git", "dvc", "prefect", *left}
    for subject in left:
        assert f"note  {subject:<12} not looked at: fix {path} first, then run it again" in printed
    assert printed.endswith("\n1 to fix\n")


def test_missing_packages_hide_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "zerovl.params_file", None)
    monkeypatch.delattr("zerovl.params_file")
    doctor.run(project / "params.yaml")
    found = levels(capsys.readouterr().out)
    assert found["packages"] == "FAIL"
    assert "torchvision" in found


def test_the_targets_of_make_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    source = "".join(Path(module.__file__).read_text() for module in (machine_checks, params_checks))
    named = set(re.findall(r"`make ([a-z0-9-]+)`", source))
    assert named
    assert named <= set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
