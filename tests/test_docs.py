"""What is written about the project holds: links, commands, paths, and a sentence on everything public.

python -m tests.test_docs       # lists what is left to do in zerovl/ and flows/
"""

from __future__ import annotations

import argparse
import ast
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.test_imports import ALLOWED
from zerovl import cli

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / folder / "README.md" for folder in ("data", "flows", "benchmarks")),
        *(ROOT / "docs").glob("*.md"),
    ]
)
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names what was there before, too
MADE = (
    "data/raw",
    "data/.prepare",
    "data/.tars",
    "data/start",
    "data/shards",
    "data/manifest",
    "data/tokenizer",
    "data/demo/raw",
    "benchmarks/work",
)
SOURCES = sorted([*(ROOT / "zerovl").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
# Words that we say otherwise (CONTRIBUTING.md, "Words" and "Prose"), and the whimsical ones that those replaced.
WORDS = re.compile(
    r"(?<![a-z])(anew|mend(s|ed|ing)?|all well|headway|gangs?|culprits?|lifelines?|narrators?)(?![a-z])", re.IGNORECASE
)
# Files that still have something to do; it must become empty, and nothing is ever added to it.
OPEN: frozenset[str] = frozenset()


def by_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# -- pages


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_point_to_what_is_there(page: Path) -> None:
    text = without_code(page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), f"{by_name(page)}: {link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{by_name(page)}: {link}: no such heading"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", CURRENT, ids=by_name)
def test_pages_use_the_words_of_today(page: Path) -> None:
    """Between quotation marks a word is only named, as in CONTRIBUTING.md."""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        assert not (found := WORDS.search(re.sub(r'"[^"]*"', "", line))), f"{by_name(page)}:{number}: says {found[0]!r}"


@pytest.mark.parametrize("page", CURRENT, ids=by_name)
def test_commands_exist(page: Path) -> None:
    """`zerovl COMMAND --option`, `make TARGET` and `python -m MODULE --option`, in blocks of code and in lines."""
    wrong = []
    for line in code_lines(page.read_text(encoding="utf-8")):
        for command in re.split(r"&&|\||;", re.split(r"\s#", line)[0]):
            wrong += [f"{problem}: {command.strip()}" for problem in problems_of(command)]
    assert wrong == []


def problems_of(command: str) -> Iterator[str]:
    options = re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", command)
    if found := re.search(r"(?:^|[\s/])zerovl ([a-z][a-z-]+)(?: ([a-z]+))?", command):
        name, action = found.groups()
        if name not in subcommands():
            yield f"no command {name}"
            return
        known = subcommands()[name]
        if name == "registry" and action:
            if action not in registry_actions():
                yield f"no action {action}"
                return
            known = known | registry_actions()[action]
        yield from (f"no option {option}" for option in options if option not in known)
    if (found := re.search(r"(?:^|[\s(])make ([a-z][a-z0-9-]*)", command)) and found[1] not in make_targets():
        yield f"no target {found[1]}"
    if found := re.search(r"-m ((?:zerovl|flows|benchmarks|tests)(?:\.\w+)+)", command):
        module = ROOT.joinpath(*found[1].split("."))
        if not (module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()):
            yield f"no module {found[1]}"
        elif found[1].startswith("flows."):
            source = module.with_suffix(".py").read_text(encoding="utf-8")
            names = [option.removeprefix("--").replace("-", "_") for option in options if option != "--help"]
            yield from (f"no option {name}" for name in names if not re.search(rf"\b{name}\b", source))


@cache
def subcommands() -> dict[str, frozenset[str]]:
    """The options of each command of `zerovl`."""
    return options_by_command(cli._parser())


@cache
def registry_actions() -> dict[str, frozenset[str]]:
    (commands,) = (action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    return options_by_command(commands.choices["registry"])


def options_by_command(parser: argparse.ArgumentParser) -> dict[str, frozenset[str]]:
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {
        name: frozenset(option for action in command._actions for option in action.option_strings)
        for name, command in commands.choices.items()
    }


@cache
def make_targets() -> frozenset[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", text, re.MULTILINE))


@pytest.mark.parametrize("page", CURRENT, ids=by_name)
def test_paths_exist(page: Path) -> None:
    """Files and folders of the project that code names; those of `zerovl/` may leave it out."""
    text = page.read_text(encoding="utf-8")
    folders = "zerovl|flows|tests|docs|examples|recipes|benchmarks|data|\\.ci"
    wrong = []
    for line in code_lines(text):
        for name in re.findall(rf"(?<![\w./@:-])(?:{folders})/[\w./-]*\w", line):
            if not name.startswith(MADE) and not exists(name, page):
                wrong.append(name)
        for name in re.findall(r"(?<![\w./@:<-])[\w/]+/\w+\.py\b", line):
            if not exists(name, page):
                wrong.append(name)
    assert wrong == []


def exists(name: str, page: Path) -> bool:
    return any((place / name).exists() for place in (ROOT, ROOT / "zerovl", page.parent))


def code_lines(text: str) -> Iterator[str]:
    """Lines of fenced blocks, continued ones as one, and the code within lines of prose."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for number, part in enumerate(re.split(r"^ *```.*$", joined, flags=re.MULTILINE)):
        if number % 2:
            yield from part.splitlines()
        else:
            yield from (code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", part))


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$|`[^`\n]+`(?!\])", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Headings as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def test_the_architecture_page_has_every_folder() -> None:
    """A new folder gets its sentence, and one that is gone loses it."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `((?:zerovl|flows)/[\w/]*)` \|", text, re.MULTILINE))
    folders = {path.parent for path in SOURCES}
    inner = {ROOT / "zerovl" / "evaluation" / "report", ROOT / "zerovl" / "registry" / "stores"}
    assert named | {f"{by_name(path)}/" for path in inner} == {f"{by_name(path)}/" for path in folders | inner}


def test_the_architecture_page_has_every_floor() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    floors = text[text.index("## The floors") : text.index("The base is")]
    firsts = [row.split("|")[1] for row in floors.splitlines() if row.startswith("| `")]
    assert {name.removeprefix("zerovl/") for first in firsts for name in re.findall(r"`([^`]+)`", first)} == set(
        ALLOWED
    )


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=by_name)
def test_a_recipe_says_command_data_cost_and_score(recipe: Path) -> None:
    lines = recipe.read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    commands = [part for line in head if line.startswith("zerovl ") for part in line.split("&&")]
    assert any(by_name(recipe) in command for command in commands)
    assert [problem for command in commands for problem in problems_of(command)] == []
    for key in ("data:", "cost:", "score:"):
        assert any(line.startswith(key) and line != key for line in head), f"{by_name(recipe)} does not say {key}"
    assert f"`{by_name(recipe)}`" in (ROOT / "README.md").read_text(encoding="utf-8")


# -- docstrings and messages


@pytest.mark.parametrize("path", [path for path in SOURCES if by_name(path) not in OPEN], ids=by_name)
def test_everything_public_has_a_sentence(path: Path) -> None:
    assert list(findings(path)) == []


def findings(path: Path) -> Iterator[str]:
    """What a file lacks: docstrings, periods, and the words that we say otherwise."""
    source = path.read_text(encoding="utf-8")
    if not source.strip():
        return
    tree = ast.parse(source)
    for name, node in public(tree, ""):
        docstring = ast.get_docstring(node)
        line = getattr(node, "lineno", 1)
        if not docstring:
            yield f"{line}: {name}: no docstring"
        elif not docstring.splitlines()[0].endswith("."):
            yield f"{line}: {name}: the first line does not end in a period"
    for number, text in enumerate(source.splitlines(), 1):  # messages, names and comments
        if found := WORDS.search(text):
            yield f"{number}: says {found[0]!r}"


def public(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef]]:
    """A module and what others may call in it: classes, functions, methods, properties."""
    if isinstance(node, ast.Module):
        yield "module", node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if child.name.startswith("_") or is_setter_or_overload(child):
                continue
            yield f"{prefix}{child.name}", child  # type: ignore[misc]
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from public(child, prefix)


def is_setter_or_overload(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Their sentence stands elsewhere."""
    return any(re.search(r"\.setter$|overload$", ast.unparse(decorator)) for decorator in node.decorator_list)


def test_what_is_looked_for_is_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '''"""Says something"""
class Thing:
    @property
    def part(self) -> int: ...
    def _own(self) -> int: ...
def act() -> None:
    """Act."""
    raise ValueError(f"{1}: mend it")  # or not
def _lifeline() -> None:
    """Hold on."""  # anew
'''
    )
    assert list(findings(path)) == [
        "1: module: the first line does not end in a period",
        "2: Thing: no docstring",
        "4: Thing.part: no docstring",
        "8: says 'mend'",
        "9: says 'lifeline'",
        "10: says 'anew'",
    ]


if __name__ == "__main__":
    for place in SOURCES:
        for finding in findings(place):
            print(f"{by_name(place)}:{finding}")
