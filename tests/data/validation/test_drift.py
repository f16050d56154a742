"""What changed since the last validation that passed."""

from pathlib import Path

import pytest

from tests.support import validation_broken_rows as change_rows
from tests.support.validation_manifests import clean_rows
from tests.support.validation_runs import broken, validate


@pytest.mark.usefixtures("by_bounds")
def test_drift_against_the_last_passed_validation(tmp_path: Path) -> None:
    first = {rule["name"]: rule for rule in validate(tmp_path, clean_rows())["rules"]}
    assert first["drift_rows"]["value"] is None
    assert first["drift_rows"]["message"].startswith("first validation")

    rows = clean_rows()
    rows["alpha", "train"] = rows["alpha", "train"][:15]
    del rows["beta", "valid"]
    for each in rows["beta", "train"]:
        each["captions"] = ["a much longer caption of many more words than before", "and a second one of the kind"]
        each["height"] = 480
    failing = clean_rows()
    change_rows.leak(failing)
    assert not validate(tmp_path, failing)["passed"]  # leaves no trace in what is compared with
    failed = broken(validate(tmp_path, rows))
    assert set(failed) == {"drift_rows", "drift_caption_words", "drift_picture_size", "drift_sources"}
    assert failed["drift_rows"]["value"] == 0.5
    assert failed["drift_rows"]["message"] == "pairs of alpha/train went from 30 to 15"
    assert failed["drift_picture_size"]["value"] == 9
    assert failed["drift_sources"]["message"] == "gone: beta/valid"

    again = broken(validate(tmp_path, rows))
    assert again == failed  # the same data has the same predecessor
    rows["alpha", "train"].pop()
    assert not broken(validate(tmp_path, rows))  # and has become the reference itself


@pytest.mark.usefixtures("by_bounds")
def test_where_no_split_stands_in_both_no_change_is_judged(tmp_path: Path) -> None:
    rows = clean_rows()
    validate(tmp_path, {name: each for name, each in rows.items() if name[0] == "alpha"})
    verdict = validate(tmp_path, {name: each for name, each in rows.items() if name[0] == "beta"})
    found = {rule["name"]: rule for rule in verdict["rules"]}
    assert found["drift_rows"]["value"] is None
    assert found["drift_rows"]["message"].startswith("no source and split stands in both")
    assert set(broken(verdict)) == {"drift_sources"}
