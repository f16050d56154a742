"""What of a module's text counts, and what it imports."""

from __future__ import annotations

import pytest

from zerovl import syntax


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("def f(a, b=1): return a", "def f(a, b=2): return a"),
        ("class A:\n    x: int = 1", "class A:\n    x: float = 1"),
        ("x = 'a'", "x = b'a'"),
        ("x = [1, 2]", "x = [[1], 2]"),
        ("x = 1", "x = True"),
    ],
)
def test_syntax_that_differs_has_another_digest(one: str, other: str) -> None:
    assert syntax.parse(one).digest != syntax.parse(other).digest


def test_layout_comments_and_docstrings_are_no_syntax() -> None:
    one = 'def f(a):\n    """Say this."""\n    return (a + 1)  # why\n'
    other = "def f(\n    a,\n):\n    return a + 1\n"
    assert syntax.parse(one) == syntax.parse(other)


def test_the_digest_of_a_program_stays_what_it_was() -> None:
    """Another one would make every stage of every checkout stale, and every run start from the beginning."""
    text = """
from a import b

class C(b):
    'Said.'

    def f(self, x: int = 1) -> str:
        return f"{x!r}"
"""
    assert syntax.parse(text).digest == "48c8656fe647cb422c3cec6583641c407a1d760384f47b6fc4ae2fed2e14c463"


def test_imports_are_found_wherever_a_statement_may_stand() -> None:
    source = """
import a
if TYPE_CHECKING:
    import no
else:
    import b
def f():
    try:
        from c import d
    except ImportError:
        import e
    else:
        import g
    finally:
        import h
class K:
    for x in (lambda: 1)():
        while x:
            with x:
                import i
match a:
    case 1:
        import j
"""
    assert syntax.parse(source).imports == ("a", "b", "c.d", "e", "g", "h", "i", "j")


@pytest.mark.parametrize(("text", "is_empty"), [("", True), ('"""Said."""\n# why\n', True), ("import a\n", False)])
def test_a_module_of_words_alone_is_empty(text: str, is_empty: bool) -> None:
    assert syntax.parse(text).is_empty == is_empty
