"""The checks that all layouts share: file names and ids."""

from __future__ import annotations

import pytest

from zerovl.data.raw.records import name_error, whole_number


@pytest.mark.parametrize("name", ["/a.jpg", "../a.jpg", "a/../../b", "C:\\a.jpg", "..\\a", "\\\\host\\a", "", "a\0b"])
def test_refused_names(name: str) -> None:
    assert name_error(name)


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "..a.jpg", "a..b", "ü 1.jpg"])
def test_accepted_names(name: str) -> None:
    assert name_error(name) is None


def test_whole_numbers() -> None:
    assert [whole_number(value) for value in ("007", " 5 ", 3, 2**63 - 1)] == [7, 5, 3, 2**63 - 1]
    assert [whole_number(value) for value in ("-1", "1.0", "", True, None, 1.0, 2**63, "٣", "9" * 30)] == [None] * 9
