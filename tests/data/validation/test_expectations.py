"""Great Expectations over the bounded tables: it breaks the rules that the exact numbers break."""

import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support import validation_broken_rows as change_rows
from tests.support.validation_broken_rows import BROKEN, GROUPS
from tests.support.validation_manifests import clean_rows, write_manifest
from tests.support.validation_runs import broken, is_inside, loads_nothing, refuse_connections, row, settings, validate
from zerovl.data.manifest import Manifest
from zerovl.data.validation.expectations import _readable, check_expectations
from zerovl.data.validation.expectations_section import expectations_section
from zerovl.files import read_json
from zerovl.stages import validate as stage
from zerovl.workspace import Workspace


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose clean data was validated from inside its folder."""
    root = tmp_path_factory.mktemp("clean")
    write_manifest(Workspace(root).manifest, clean_rows())
    with pytest.MonkeyPatch.context() as patch, open(root / "out", "w") as out, open(root / "err", "w") as err:
        refuse_connections(patch)
        patch.chdir(root)
        with redirect_stdout(out), redirect_stderr(err):
            stage.run(settings(), Workspace())
    return root


def test_clean_data_passes_every_rule(clean: Path) -> None:
    verdict = read_json(Workspace(clean).validation_verdict)
    assert verdict["passed"]
    assert verdict["rows"] == verdict["sampled_rows"] == 120
    assert not broken(verdict)
    assert len(verdict["rules"]) == 21
    assert verdict["manifest_digest"] == Manifest.load(Workspace(clean).manifest).digest
    statistics = verdict["statistics"]["alpha"]["train"]
    assert (statistics["pairs"], statistics["captions"], statistics["broken"]) == (30, 60, 0)
    assert statistics["width"] == {"mean": 65.0, "p5": 64, "p50": 65, "p95": 66}
    # "two blue dots" stands under each of the 30 pictures
    assert statistics["equals"] == {"captions": 30, "caption_pairs": 435, "pictures": 0, "picture_pairs": 0}
    assert "equals" not in verdict["statistics"]["alpha"]["valid"]
    assert "<td class='number'>50%</td><td class='number'>0%</td>" in Workspace(clean).validation_page.read_text()
    assert statistics["words"] == {"mean": 5.0, "p5": 3, "p50": 3, "p95": 7}
    said = "validation passed: 21 rules (4 with nothing to check), 0 warnings, 120 rows; see "
    assert (clean / "out").read_text().startswith(said)
    assert (clean / "err").read_text() == ""
    assert (clean / "reports/validation/data_docs/index.html").exists()
    assert not (clean / "reports/validation/scratch").exists()


def test_no_machine_path_is_left_in_the_report(clean: Path) -> None:
    files = [file for file in (clean / "reports").rglob("*") if file.is_file()]
    kinds = {".html", ".json", ".yml", ".csv", ".parquet"}
    assert kinds <= {file.suffix for file in files}
    for file in files:
        if file.suffix in kinds:
            assert str(clean).encode() not in file.read_bytes(), file


@pytest.mark.usefixtures("no_data_docs")
@pytest.mark.parametrize(("changes", "options"), GROUPS, ids=["rows", "leaks", "sources"])
def test_great_expectations_breaks_what_the_exact_numbers_break(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[Callable[..., None]], options: dict[str, Any]
) -> None:
    rows = clean_rows()
    for number, break_rows in enumerate(changes, start=3):
        break_rows(rows, number)
    exact = {}

    def judged(*arguments: Any) -> Any:
        exact.update({rule.name: is_inside(rule) for rule in arguments[3]})
        return check_expectations(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "check_expectations", judged)
        verdict = validate(tmp_path, rows, **options)
    failed = broken(verdict)
    assert set(failed) == {name for name, inside in exact.items() if not inside}
    assert set(failed) >= {change.rule for change in BROKEN if change.break_rows in changes}
    found = {(each["table"], each["rule"]): True for each in verdict["expectations"]}
    for each in verdict["expectations"]:
        found[each["table"], each["rule"]] &= each["success"]
    assert {rule for (table, rule), held in found.items() if table == "rules" and not held} == set(failed)
    # What one row shows is seen in the sample too: all rows are in it.
    seen = {rule for (table, rule), held in found.items() if table == "sample" and not held}
    assert seen >= set(failed) & {"complete", "keys_unique", "image_ids_unique", "caption_words_max", "image_side"}
    # All of it is on the page, which needs neither the network nor Data Docs; here there are none.
    page = Workspace(tmp_path).validation_page.read_text(encoding="utf-8")
    assert expectations_section(verdict) in page
    loads_nothing(page)
    err = capsys.readouterr().err
    for rule in verdict["rules"]:
        assert (f"warning: {rule['name']}" in err) == (rule["name"] in failed and rule["level"] == "soft")


@pytest.mark.usefixtures("no_data_docs")
def test_great_expectations_agrees_with_plain_pandas(tmp_path: Path) -> None:
    rows = clean_rows()
    for change in (
        change_rows.null,
        change_rows.long_caption,
        change_rows.short_caption,
        change_rows.flat,
        change_rows.control,
        change_rows.same_key,
    ):
        change(rows)
    row(rows, 9)["key"] = "alpha-1"
    row(rows, 11).update(width=10)
    options: dict[str, Any] = {"min_caption_words": 4}
    verdict = validate(tmp_path, rows, **options)
    tables = {
        name: pd.read_parquet(tmp_path / f"reports/validation/tables/{name}.parquet")
        for name in ("sample", "shards", "rules")
    }
    sample, shards = tables["sample"], tables["shards"]
    expected = {
        ("sample", "key", "keys_unique"): sample["key"].duplicated(keep=False).sum(),
        ("sample", "sha256", "complete"): sample["sha256"].isna().sum(),
        ("sample", "words_min", "caption_words_min"): (sample["words_min"] < 4).sum(),
        ("sample", "words_max", "caption_words_max"): (sample["words_max"] > 200).sum(),
        ("sample", "side", "image_side"): (sample["side"] < 16).sum(),
        ("sample", "aspect", "image_aspect"): (sample["aspect"] > 8).sum(),
        ("sample", "caption", "caption_content"): sample["caption"].str.contains("\x00").sum(),
        ("shards", "side_min", "image_side"): (shards["side_min"] < 16).sum(),
        ("shards", "nulls", "complete"): (shards["nulls"] > 0).sum(),
    }
    outcomes = {
        (each["table"], each["column"], each["rule"]): each
        for each in verdict["expectations"]
        if isinstance(each["column"], str)
    }
    for name, count in expected.items():
        assert outcomes[name]["unexpected"] == count, name
        assert outcomes[name]["success"] == (count == 0), name
    assert outcomes["sample", "aspect", "image_aspect"]["examples"] == ["9"]
    assert outcomes["sample", "caption", "caption_content"]["examples"] == [repr("two \x00 dots")]
    assert outcomes["sample", "sha256", "complete"]["examples"] == []  # a missing value has nothing to show
    page = Workspace(tmp_path).validation_page.read_text(encoding="utf-8")
    for each in verdict["expectations"]:
        assert f"</td><td>{escape(each['expected'])}</td>" in page
    assert "<td>at most 8</td><td class='state broken'>broken</td><td>1 of 120 are not: 9</td>" in page
    assert "<code>key</code></td><td>is unique</td><td class='state broken'>broken</td><td>3 of 120 are not: " in page
    for rule in verdict["rules"]:
        low, high = re.fullmatch(r"(?:>= (\S+))?(?:<= (\S+))?", rule["bound"]).groups()  # type: ignore[union-attr]
        inside = rule["value"] is None or (rule["value"] >= float(low) if low else rule["value"] <= float(high))
        assert rule["passed"] == inside, rule["name"]


@pytest.mark.usefixtures("by_bounds")
def test_the_sample_is_bounded_fixed_and_uniform(tmp_path: Path) -> None:
    rows = clean_rows(100)
    tables = []
    for root in (tmp_path / "a", tmp_path / "b"):
        assert validate(root, rows, sample_rows=200)["sampled_rows"] == 200
        tables.append(pd.read_parquet(root / "reports/validation/tables/sample.parquet"))
    assert tables[0].equals(tables[1])
    assert tables[0]["key"].is_unique
    assert tables[0].groupby(["source", "split"]).size().between(35, 65).all()  # 50 expected, sd 4.3
    validate(tmp_path / "a", sample_rows=200, seed=1)
    other = pd.read_parquet(tmp_path / "a/reports/validation/tables/sample.parquet")
    assert set(other["key"]) != set(tables[0]["key"])


def test_numbers_of_columns_side_by_side_are_shown_as_numbers() -> None:
    """Great Expectations gives a broken pair of columns as a row of numpy's numbers."""
    assert _readable((np.int64(12), np.int64(10))) == "12 / 10"
    assert _readable({"a": np.float32(0.5), "b": "two\nlines"}) == "0.5 / 'two\\nlines'"
