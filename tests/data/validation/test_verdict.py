"""What the stage leaves: a verdict of these data, quarantined inputs by reason, messages that name the fix."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support import validation_broken_rows as change_rows
from tests.support.validation_manifests import clean_rows, quarantine, write_manifest
from tests.support.validation_runs import row, settings, validate
from zerovl.errors import ZeroVLError
from zerovl.params import StreamingParams, StreamParams, TrainParams
from zerovl.stages import validate as stage
from zerovl.workspace import Workspace


@pytest.mark.usefixtures("by_bounds")
def test_the_error_names_rule_value_bound_example_and_fix(tmp_path: Path) -> None:
    rows = clean_rows()
    change_rows.leak(rows)
    write_manifest(Workspace(tmp_path).manifest, rows)
    with pytest.raises(ZeroVLError) as caught:
        stage.run(settings(), Workspace(tmp_path))
    text = str(caught.value)
    assert "leaked (hard) is 1, must be <= 0: 1 of 60 valid pictures are in train too" in text
    assert "alpha-38 (alpha/valid_anno.csv:9): same bytes as train's beta-64 of beta/train_anno.csv:5" in text
    assert "fix: set prepare.filters.leaks: exact in params.yaml, so that train loses them, and run" in text


@pytest.mark.usefixtures("no_data_docs")
def test_equal_data_give_equal_verdicts(tmp_path: Path) -> None:
    rows = clean_rows()
    change_rows.quarantined(rows)
    validate(tmp_path, rows)
    report = tmp_path / "reports/validation"
    first = [(report / name).read_bytes() for name in ("verdict.json", "index.html", "broken.csv")]
    validate(tmp_path)  # the previous verdict is now there, and is of the same data
    assert [(report / name).read_bytes() for name in ("verdict.json", "index.html", "broken.csv")] == first


@pytest.mark.usefixtures("by_bounds")
def test_quarantined_inputs_are_listed_by_reason(tmp_path: Path) -> None:
    rows = clean_rows()
    for number in range(3):
        quarantine(row(rows, number), f"truncated ({number} bytes are missing)")
    quarantine(row(rows, 5, ("alpha", "valid")), 'caption "x, y" has 20000 bytes')
    verdict = validate(tmp_path, rows, max_broken_fraction=0.1)
    assert {reason: values["count"] for reason, values in verdict["quarantine"].items()} == {
        "truncated (# bytes are missing)": 3,
        'caption "x, y" has 20000 bytes': 1,
    }
    with open(tmp_path / "reports/validation/broken.csv", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert [each["error"] for each in listed] == [
        'caption "x, y" has 20000 bytes',
        *(f"truncated ({number} bytes are missing)" for number in range(3)),
    ]
    assert listed[0]["origin"] == "alpha/valid_anno.csv:7"
    strict = settings(max_broken_fraction=0.0)
    with pytest.raises(
        ZeroVLError, match=r"4 of \d+ inputs are .*one caption that(.|\n)*in reports/validation/broken\.csv,"
    ):
        stage.run(strict, Workspace(tmp_path))


@pytest.mark.usefixtures("by_bounds")
def test_equal_examples_are_shown_once(tmp_path: Path) -> None:
    rows = clean_rows()
    lost = "samples.tar has 37 of the 40 samples that samples_stats.json beside it states"
    for number in range(3):
        row(rows, number)["key"] = row(rows, number)["origin"] = "samples.tar"
        quarantine(row(rows, number), lost)
    quarantine(row(rows, 5, ("alpha", "valid")), "truncated")
    verdict = validate(tmp_path, rows, max_broken_fraction=0.1)
    assert verdict["quarantine"][lost]["count"] == 3
    assert [each["detail"] for each in verdict["quarantine"][lost]["examples"]] == [lost]
    (rule,) = [rule for rule in verdict["rules"] if rule["name"] == "broken_fraction"]
    assert sorted(each["detail"] for each in rule["examples"]) == [lost, "truncated"]


@pytest.mark.usefixtures("by_bounds")
def test_a_missing_or_foreign_table_is_named(tmp_path: Path) -> None:
    manifest = write_manifest(Workspace(tmp_path).manifest, clean_rows(2))
    path = manifest.table_path("beta", "train")
    path.write_bytes(b"no parquet")
    with pytest.raises(ZeroVLError, match=r"beta-train\.parquet: cannot be read .*dvc repro -f prepare"):
        stage.run(settings(), Workspace(tmp_path))
    pd.DataFrame({"key": ["a"]}).to_parquet(path)
    with pytest.raises(ZeroVLError, match=r"beta-train\.parquet: no column source"):
        stage.run(settings(), Workspace(tmp_path))
    assert not (tmp_path / "reports/validation/verdict.json").exists()
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.usefixtures("by_bounds")
def test_no_verdict_of_older_data_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validate(tmp_path, clean_rows(2))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "broken.csv")

    monkeypatch.setattr(stage, "scan", full)
    with pytest.raises(ZeroVLError, match="No space left on device; make room"):
        stage.run(settings(), Workspace(tmp_path))
    assert not (tmp_path / "reports/validation/verdict.json").exists()
    assert not (tmp_path / "reports/validation/scratch").exists()


@pytest.mark.usefixtures("by_bounds")
def test_streamed_sources_are_named_as_not_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not_looked_at" not in validate(tmp_path, clean_rows(2))
    sources = [StreamParams(name=name, urls=[f"{name}.tar"]) for name in ("web", "news")]
    train = TrainParams(reading="streaming", streaming=StreamingParams(sources=sources))
    stage.run(settings().model_copy(update={"train": train}), Workspace(tmp_path))
    assert json.loads(Workspace(tmp_path).validation_verdict.read_text())["not_looked_at"] == ["news", "web"]
    assert "Not looked at, as training streams them: news, web." in Workspace(tmp_path).validation_page.read_text()
    assert "not looked at, as training streams them: news, web" in capsys.readouterr().out
