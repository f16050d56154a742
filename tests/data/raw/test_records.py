"""The checks that all layouts share: file names and ids."""

from __future__ import annotations

from itertools import product
from pathlib import PurePosixPath, PureWindowsPath

import pytest

from zerovl.data.raw.records import name_error, whole_number


@pytest.mark.parametrize("name", ["/a.jpg", "../a.jpg", "a/../../b", "C:\\a.jpg", "..\\a", "\\\\host\\a", "", "a\0b"])
def test_refused_names(name: str) -> None:
    assert name_error(name)


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "..a.jpg", "a..b", "ü 1.jpg"])
def test_accepted_names(name: str) -> None:
    assert name_error(name) is None


def test_names_without_signs_are_refused_by_pathlib_no_more() -> None:
    """Of all short names; most names are not given to `pathlib`."""
    for name in ("".join(letters) for size in range(1, 6) for letters in product("./\\:aC ", repeat=size)):
        posix, windows = PurePosixPath(name), PureWindowsPath(name)
        absolute = posix.is_absolute() or windows.drive or name.startswith("\\")
        refused = not name.strip() or absolute or ".." in posix.parts or ".." in windows.parts
        assert (name_error(name) is not None) == bool(refused), name


def test_whole_numbers() -> None:
    assert [whole_number(value) for value in ("007", " 5 ", 3, 2**63 - 1)] == [7, 5, 3, 2**63 - 1]
    assert [whole_number(value) for value in ("-1", "1.0", "", True, None, 1.0, 2**63, "٣", "9" * 30)] == [None] * 9
