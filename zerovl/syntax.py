"""What counts of a module's text: a digest of its syntax, and what it imports.

The digest is taken over the syntax tree without comments and docstrings, so that a better sentence is no
other program.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # fields of a statement that hold statements


@dataclass(frozen=True)
class Syntax:
    """What counts of a module.

    Attributes:
        digest: of its syntax tree; equal for every Python that parses it alike.
        imports: full names that it imports when it runs, sorted; "from a import b" is "a.b".
        is_empty: nothing stands in it but a docstring.
    """

    digest: str
    imports: tuple[str, ...]
    is_empty: bool


def parse(text: str) -> Syntax:
    """Return what counts of a program. Raises SyntaxError where it is not one."""
    tree = ast.parse(text)
    return Syntax(tree_digest(tree), tuple(sorted(set(imports(tree)))), all(map(_is_docstring, tree.body)))


def tree_digest(tree: ast.Module) -> str:
    """Digest of a program without its comments and docstrings; equal for every Python that parses it alike."""
    words: list[str] = []
    _flatten(tree, words)
    return hashlib.sha256("".join(f"{word}\0" for word in words).encode()).hexdigest()


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names that a program imports when it runs; statements alone are looked at, as no expression imports."""
    for block in _BLOCKS:
        for node in getattr(tree, block, ()):
            if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                yield from imports(ast.Module(node.orelse, []))
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield from imports(node)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _flatten(value: object, words: list[str]) -> None:
    """Add a syntax tree as words; fields that are empty are left out, as newer Pythons have more of them."""
    if isinstance(value, ast.AST):
        words.append(f"({type(value).__name__}")
        for name in value._fields:
            field = getattr(value, name, None)
            if name == "body" and isinstance(value, _WITH_DOCSTRING) and field and _is_docstring(field[0]):
                field = field[1:]
            if field is not None and field != []:
                words.append(name)
                _flatten(field, words)
        words.append(")")
    elif isinstance(value, list):
        words.append("[")
        for item in value:
            _flatten(item, words)
        words.append("]")
    else:
        words.append(f"{type(value).__name__} {value!r}")
