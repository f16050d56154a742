"""What is kept of parsed modules: believed for the text, Python and program that it was made of, and only whole."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from zerovl import kept_syntax, syntax
from zerovl.kept_syntax import KeptSyntax, hand_on, kept_file
from zerovl.syntax import Syntax

TEXTS = {"a.py": "import b\nx = 1\n", "below/c.py": "y = 2\n"}


@pytest.fixture(autouse=True)
def _beside_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are parsed."""
    texts: list[str] = []
    parse = syntax.parse

    def watched(text: str) -> Syntax:
        texts.append(text)
        return parse(text)

    monkeypatch.setattr(syntax, "parse", watched)
    return texts


def look(package: Path) -> dict[str, Syntax]:
    """As a process does that asks for all modules."""
    kept = KeptSyntax(package)
    found = {name: kept.of(package / name) for name in TEXTS}
    kept.keep()
    return found


def test_the_next_process_parses_nothing_and_finds_the_same(package: Path, parsed: list[str]) -> None:
    first = look(package)
    assert parsed == list(TEXTS.values())
    assert look(package) == first
    assert len(parsed) == 2
    assert [path.name for path in kept_file(package).parent.iterdir()] == [kept_file(package).name]


def test_all_modules_of_the_project_are_kept_as_they_are_parsed(tmp_path: Path) -> None:
    files = [path.relative_to(ROOT) for path in sorted((ROOT / "zerovl").rglob("*.py"))]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    first = KeptSyntax(tmp_path)
    parsed = {file: first.of(tmp_path / file) for file in files}
    first.keep()
    again = KeptSyntax(tmp_path)
    assert {file: again.of(tmp_path / file) for file in files} == parsed


def test_a_changed_module_alone_is_parsed_again(package: Path, parsed: list[str]) -> None:
    before = look(package)
    (package / "a.py").write_text("import b\nx = 2\n")
    after = look(package)
    assert parsed[2:] == ["import b\nx = 2\n"]
    assert after["a.py"].digest != before["a.py"].digest
    assert look(package) == after
    assert len(parsed) == 3


def test_a_copy_begins_with_what_is_kept_of_the_package(package: Path, parsed: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    hand_on(package, copy)  # of nothing, to nowhere
    first = look(package)
    hand_on(package, copy)
    assert not copy.exists()
    for name in TEXTS:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package / name, copy / name)
    hand_on(package, copy)
    assert look(copy) == first
    assert len(parsed) == 2
    (copy / "a.py").write_text("x = 3\n")
    assert look(copy)["a.py"] != first["a.py"]
    assert parsed[2:] == ["x = 3\n"]
    assert look(package) == first


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def flipped(file: Path) -> None:
    """Another digest in place of one that was kept, in a file that is whole JSON."""
    kept = json.loads(file.read_text())
    kept["rows"]["a.py"]["digest"] = "0" * 64
    file.write_text(json.dumps(kept))


def other(file: Path) -> None:
    file.write_text("[]")


def binary(file: Path) -> None:
    file.write_bytes(b"\xff\x00")


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [cut, emptied, flipped, other, binary, folder, Path.unlink])
def test_what_is_damaged_or_gone_is_parsed_again(
    damage: Callable[[Path], None], package: Path, parsed: list[str]
) -> None:
    first = look(package)
    damage(kept_file(package))
    assert look(package) == first
    assert len(parsed) == 4


def test_what_another_python_or_another_program_kept_is_parsed_again(
    package: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look(package)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version", "3.99.0")
        look(package)
    assert len(parsed) == 4
    look(package)
    assert len(parsed) == 6
    monkeypatch.setattr(kept_syntax, "_program", lambda: "other")
    look(package)
    assert len(parsed) == 8


def refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be written, whoever runs the tests."""

    def replace(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", replace)


def no_bytecode(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def no_folder(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_file(package).parent.write_text("a file")


@pytest.mark.parametrize("forbid", [refused, no_bytecode, no_folder])
def test_where_nothing_may_be_kept_all_goes_on(
    forbid: Callable[[Path, pytest.MonkeyPatch], None],
    package: Path,
    parsed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbid(package, monkeypatch)
    first = look(package)
    assert look(package) == first
    assert len(parsed) == 4
    assert not [path for path in package.rglob("*") if "syntax" in path.name]


def test_it_lies_where_bytecode_is_wanted(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "elsewhere"))
    look(package)
    assert kept_file(package).is_relative_to(tmp_path / "elsewhere")
    assert kept_file(package).is_file()
    assert not (package / "__pycache__").exists()
