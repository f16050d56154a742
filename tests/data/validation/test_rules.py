"""Each rule breaks by its name, its exact value and an example; what it takes for granted holds."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.support.validation_broken_rows import BROKEN, Change, row_a_caption
from tests.support.validation_manifests import clean_rows, quarantine, write_manifest
from tests.support.validation_runs import broken, row, validate
from zerovl.data.manifest import Manifest
from zerovl.data.validation import measured_rows
from zerovl.workspace import Workspace

pytestmark = pytest.mark.usefixtures("by_bounds")


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.break_rows.__name__)
def test_each_rule_breaks_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change) -> None:
    rows = clean_rows()
    change.break_rows(rows)
    verdict = validate(tmp_path, rows, **change.options)
    failed = broken(verdict)
    rule = change.rule
    allowed = {rule, "caption_words_min"} if rule == "captions_not_blank" else {rule}  # no word is also too few
    assert set(failed) <= allowed
    assert failed[rule]["level"] == change.level
    assert failed[rule]["value"] == pytest.approx(change.value)
    assert failed[rule]["examples"][0]["key"] == change.key
    assert 1 <= len(failed[rule]["examples"]) <= 5
    assert failed[rule]["examples"][0]["origin"] or rule == "sources_have_pairs"
    assert verdict["passed"] == (change.level == "soft")
    assert (f"warning: {rule}" in capsys.readouterr().err) == (change.level == "soft")


def test_copies_whose_captions_are_wanted_are_not_to_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = clean_rows()
    row_a_caption(rows)
    failed = broken(validate(tmp_path, rows))
    assert set(failed) == {"duplicate_fraction", "one_row_a_picture"}
    assert "fix: leave copies that one_row_a_picture does not name out by " in capsys.readouterr().err


def test_words_are_counted_as_python_splits_them() -> None:
    texts = [f"a{chr(code)}b" for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    counted = pc.count_substring_regex(pa.array(texts), pattern=measured_rows._WORD).to_pylist()
    assert counted == [len(text.split()) for text in texts]


def test_rows_without_an_id_are_incomplete_and_not_repeated(tmp_path: Path) -> None:
    rows = clean_rows()
    for number in (3, 4):
        row(rows, number)["image_id"] = None
    failed = broken(validate(tmp_path, rows))
    assert set(failed) == {"complete"}
    assert [each["detail"] for each in failed["complete"]["examples"]] == ["no image_id", "no image_id"]


def test_the_manifest_must_hold_what_it_says(tmp_path: Path) -> None:
    manifest = write_manifest(Workspace(tmp_path).manifest, clean_rows())
    first = manifest.splits["alpha", "train"]
    shards = (replace(first.shards[0], samples=9), *first.shards[1:])
    Manifest(manifest.folder, {**manifest.splits, ("alpha", "train"): replace(first, shards=shards)}).save()
    failed = broken(validate(tmp_path))
    assert set(failed) == {"manifest_counts"}
    assert "10 rows in the table, 9 samples listed" in failed["manifest_counts"]["examples"][0]["detail"]


def test_a_manifest_without_any_pair_is_refused(tmp_path: Path) -> None:
    rows = clean_rows(2)
    for each in (each for its_rows in rows.values() for each in its_rows):
        quarantine(each, "not a picture")
    assert {"sources_have_pairs", "broken_fraction"} == set(broken(validate(tmp_path, rows)))
