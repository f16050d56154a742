"""Reasons without their numbers are of one kind, and names keep theirs."""

from __future__ import annotations

from zerovl.data.broken_inputs import Kinds, kind_of


def test_numbers_make_no_kinds_and_belong_to_names() -> None:
    assert kind_of("9000x8000 pixels, more than 50000000", ()) == "#x# pixels, more than #"
    assert kind_of("a whole tar has 2 of the 3 samples that 00000_stats.json beside it states", ()) == (
        "a whole tar has # of the # samples that #_stats.json beside it states"
    )
    said = "a web address; fetch the pictures first, for example with img2dataset"
    assert kind_of(said, ()) == said


def test_a_kind_of_one_reason_is_called_by_it() -> None:
    kinds = Kinds()
    reasons = ["has 2 of the 3 samples", "cut at byte 7", "has 2 of the 3 samples", "cut at byte 9", "cut at byte 7"]
    found = [kinds.add(reason) for reason in reasons]
    assert found == ["has # of the # samples", "cut at byte #"] * 2 + ["cut at byte #"]
    assert [kinds.called(kind) for kind in found[:2]] == ["has 2 of the 3 samples", "cut at byte #"]
