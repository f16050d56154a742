import csv
import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.support.validation_manifests import Rows, clean_rows, quarantine, write_manifest
from zerovl.data.manifest import Manifest
from zerovl.data.validation import expectations, scan
from zerovl.errors import ZeroVLError
from zerovl.params import Params, ValidateParams
from zerovl.stages import validate as stage
from zerovl.workspace import Workspace


def settings(**values: Any) -> Params:
    return Params(validate=ValidateParams(**{"sample_rows": 1000, **values}))


def validate(root: Path, rows: Rows | None = None, **values: Any) -> dict[str, Any]:
    """The verdict, whether passed or not."""
    if rows is not None:
        write_manifest(Workspace(root).manifest, rows)
    try:
        stage.run(settings(**values), Workspace(root))
    except ZeroVLError:
        verdict = json.loads((root / "reports/validation/verdict.json").read_text())
        assert not verdict["passed"]
        return verdict
    verdict = json.loads((root / "reports/validation/verdict.json").read_text())
    assert verdict["passed"]
    return verdict


def broken(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rule["name"]: rule for rule in verdict["rules"] if not rule["passed"]}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"validate opened a connection: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_clean_data_passes_every_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = validate(tmp_path, clean_rows())
    assert verdict["rows"] == verdict["sampled_rows"] == 120
    assert not broken(verdict)
    assert len(verdict["rules"]) == 20
    assert verdict["manifest_digest"] == Manifest.load(Workspace(tmp_path).manifest).digest
    statistics = verdict["statistics"]["alpha"]["train"]
    assert (statistics["pairs"], statistics["captions"], statistics["broken"]) == (30, 60, 0)
    assert statistics["width"] == {"mean": 65.0, "p5": 64, "p50": 65, "p95": 66}
    assert statistics["words"] == {"mean": 5.0, "p5": 3, "p50": 3, "p95": 7}
    printed = capsys.readouterr()
    assert printed.out.startswith("validation passed: 20 rules, 0 warnings, 120 rows; see ")
    assert printed.err == ""
    assert (tmp_path / "reports/validation/data_docs/index.html").exists()
    assert not (tmp_path / "reports/validation/scratch").exists()


def row(rows: Rows, number: int = 3, split: tuple[str, str] = ("beta", "train")) -> dict[str, Any]:
    return rows[split][number]


def _null(rows: Rows) -> None:
    row(rows)["sha256"] = None


def _no_captions(rows: Rows) -> None:
    row(rows).update(captions=[], caption_ids=[])


def _null_caption(rows: Rows) -> None:
    row(rows)["captions"] = ["a green star", None]


def _same_key(rows: Rows) -> None:
    row(rows)["key"] = "alpha-1"


def _same_image_id(rows: Rows) -> None:
    row(rows)["image_id"] = row(rows, 0)["image_id"]


def _same_image_id_across_splits(rows: Rows) -> None:
    row(rows)["image_id"] = row(rows, 0, ("beta", "valid"))["image_id"]


def _same_caption_id(rows: Rows) -> None:
    row(rows)["caption_ids"] = [row(rows, 0)["caption_ids"][1], 999_999]


def _long_caption(rows: Rows) -> None:
    row(rows)["captions"] = ["word " * 201, "two blue dots"]


def _short_caption(rows: Rows) -> None:
    row(rows)["captions"] = ["dots", "two blue dots"]


def _blank(rows: Rows) -> None:
    row(rows)["captions"] = ["two blue dots", " \u3000\t"]


def _control(rows: Rows) -> None:
    row(rows)["captions"] = ["two \x00 dots", "two blue dots"]


def _markup(rows: Rows) -> None:
    row(rows)["captions"] = ["two blue dots", '<a href="x"> <br/> </a>&nbsp;']


def _address(rows: Rows) -> None:
    row(rows)["captions"] = ["https://example.org/a.jpg", "two blue dots"]


def _small(rows: Rows) -> None:
    row(rows).update(width=640, height=15)


def _flat(rows: Rows) -> None:
    row(rows).update(width=64 * 9, height=64)


def _quarantined(rows: Rows) -> None:
    quarantine(row(rows), "truncated (17 bytes are missing)")


def _duplicates(rows: Rows) -> None:
    for number in range(1, 30):
        row(rows, number)["sha256"] = row(rows, 0)["sha256"]


def _leak(rows: Rows) -> None:
    """A valid picture of one source in the training split of another one."""
    row(rows)["sha256"] = row(rows, 7, ("alpha", "valid"))["sha256"]


def _near(rows: Rows) -> None:
    row(rows)["phash"] = row(rows, 7, ("alpha", "valid"))["phash"] ^ 0b101


def _empty_source(rows: Rows) -> None:
    for each in rows["beta", "train"]:
        quarantine(each, "not a picture")


BETA = "beta-64"  # the fourth row of beta/train
CASES: list[tuple[Callable[[Rows], None], str, str, Any, str, dict[str, Any]]] = [
    (_null, "complete", "hard", 1, BETA, {}),
    (_no_captions, "complete", "hard", 1, BETA, {}),
    (_null_caption, "complete", "hard", 1, BETA, {}),
    (_same_key, "keys_unique", "hard", 1, "alpha-1", {}),
    (_same_image_id, "image_ids_unique", "hard", 1, BETA, {}),
    (_same_image_id_across_splits, "image_ids_unique", "hard", 1, "beta-91", {}),
    (_same_caption_id, "caption_ids_unique", "hard", 1, BETA, {}),
    (_long_caption, "caption_words_max", "soft", 201, BETA, {}),
    (_short_caption, "caption_words_min", "soft", 1, BETA, {"min_caption_words": 2}),
    (_blank, "captions_not_blank", "hard", 1, BETA, {}),
    (_control, "caption_content", "soft", 1, BETA, {}),
    (_markup, "caption_content", "soft", 1, BETA, {}),
    (_address, "caption_content", "soft", 1, BETA, {}),
    (_small, "image_side", "hard", 15, BETA, {"max_aspect": 100.0}),
    (_flat, "image_aspect", "soft", 9, BETA, {}),
    (_quarantined, "broken_fraction", "hard", 1 / 120, BETA, {"max_broken_fraction": 0.005}),
    (_duplicates, "duplicate_fraction", "soft", 29 / 120, "beta-62", {}),
    (_leak, "leaked", "hard", 1, "alpha-38", {}),
    (_near, "near_leaked_fraction", "soft", 1 / 60, "alpha-38", {"max_near_leaked_fraction": 0.01}),
    (_empty_source, "sources_have_pairs", "hard", 1, "beta/train", {"max_broken_fraction": 1.0}),
]


@pytest.mark.parametrize(
    ("change", "rule", "level", "value", "key", "options"), CASES, ids=lambda v: getattr(v, "__name__", None)
)
def test_each_rule_breaks_by_its_name(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Rows], None],
    rule: str,
    level: str,
    value: float,
    key: str,
    options: dict[str, Any],
) -> None:
    rows = clean_rows()
    change(rows)
    verdict = validate(tmp_path, rows, **options)
    failed = broken(verdict)
    allowed = {rule, "caption_words_min"} if rule == "captions_not_blank" else {rule}  # no word is also too few
    assert set(failed) <= allowed
    assert failed[rule]["level"] == level
    assert failed[rule]["value"] == pytest.approx(value)
    assert failed[rule]["examples"][0]["key"] == key
    assert 1 <= len(failed[rule]["examples"]) <= 5
    assert failed[rule]["examples"][0]["origin"] or rule == "sources_have_pairs"
    assert verdict["passed"] == (level == "soft")
    assert (f"warning: {rule}" in capsys.readouterr().err) == (level == "soft")


def test_words_are_counted_as_python_splits_them() -> None:
    texts = [f"a{chr(code)}b" for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    counted = pc.count_substring_regex(pa.array(texts), pattern=scan._WORD).to_pylist()
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


def test_the_error_names_rule_value_bound_example_and_fix(tmp_path: Path) -> None:
    rows = clean_rows()
    _leak(rows)
    write_manifest(Workspace(tmp_path).manifest, rows)
    with pytest.raises(ZeroVLError) as caught:
        stage.run(settings(), Workspace(tmp_path))
    text = str(caught.value)
    assert "leaked (hard) is 1, must be <= 0: 1 of 60 valid pictures are in train too" in text
    assert "alpha-38 (alpha/valid_anno.csv:9): same bytes as train's beta-64 of beta/train_anno.csv:5" in text
    assert "fix: remove them from one of the two splits, or raise validate.max_leaked" in text


def test_equal_data_give_equal_verdicts(tmp_path: Path) -> None:
    rows = clean_rows()
    _quarantined(rows)
    validate(tmp_path, rows)
    report = tmp_path / "reports/validation"
    first = [(report / name).read_bytes() for name in ("verdict.json", "index.html", "broken.csv")]
    validate(tmp_path)  # the previous verdict is now there, and is of the same data
    assert [(report / name).read_bytes() for name in ("verdict.json", "index.html", "broken.csv")] == first


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
    _leak(failing)
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


def test_great_expectations_agrees_with_plain_pandas(tmp_path: Path) -> None:
    rows = clean_rows()
    for change in (_null, _long_caption, _short_caption, _flat, _control, _same_key):
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
    for rule in verdict["rules"]:
        low, high = re.fullmatch(r"(?:>= (\S+))?(?:<= (\S+))?", rule["bound"]).groups()  # type: ignore[union-attr]
        inside = rule["value"] is None or (rule["value"] >= float(low) if low else rule["value"] <= float(high))
        assert rule["passed"] == inside, rule["name"]


def test_quarantined_inputs_are_listed_by_reason(tmp_path: Path) -> None:
    rows = clean_rows()
    for number in range(3):
        quarantine(row(rows, number), f"truncated ({number} bytes are missing)")
    quarantine(row(rows, 5, ("alpha", "valid")), 'caption "x, y" has 20000 bytes')
    verdict = validate(tmp_path, rows, max_broken_fraction=0.1)
    assert {reason: values["count"] for reason, values in verdict["quarantine"].items()} == {
        "truncated (# bytes are missing)": 3,
        'caption "x, y" has # bytes': 1,
    }
    with open(tmp_path / "reports/validation/broken.csv", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert [each["error"] for each in listed] == [
        'caption "x, y" has 20000 bytes',
        *(f"truncated ({number} bytes are missing)" for number in range(3)),
    ]
    assert listed[0]["origin"] == "alpha/valid_anno.csv:7"


class Loads(HTMLParser):
    """Everything that a browser would fetch, and the text it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]


def test_the_page_loads_nothing_and_escapes_what_came_from_data(tmp_path: Path) -> None:
    rows = clean_rows()
    hostile = '<script src="https://evil.example/x.js"></script><img src=x onerror=alert(1)>'
    for number in range(3):
        quarantine(row(rows, number), f"not a picture: {hostile}")
    row(rows, 5).update(captions=[f"\x07 {hostile}", "two blue dots"], origin=f"{hostile}.jpg")
    validate(tmp_path, rows, max_broken_fraction=0.1)
    page = (tmp_path / "reports/validation/index.html").read_text(encoding="utf-8")
    parsed = Loads()
    parsed.feed(page)
    assert set(parsed.addresses) == {"data:,", "verdict.json", "broken.csv", "data_docs/index.html"}
    assert not {"script", "img", "iframe", "object"} & set(parsed.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert "&lt;script src=&quot;https://evil.example" in page
    assert "$" not in re.sub(r"<code>.*?</code>", "", page)  # no placeholder is left


def test_no_machine_path_is_left_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(Workspace(tmp_path).manifest, clean_rows())
    monkeypatch.chdir(tmp_path)
    stage.run(settings(), Workspace())
    for file in (tmp_path / "reports").rglob("*"):
        if file.suffix in (".html", ".json", ".yml", ".csv", ".parquet"):
            assert str(tmp_path).encode() not in file.read_bytes(), file


def test_a_manifest_without_any_pair_is_refused(tmp_path: Path) -> None:
    rows = clean_rows(2)
    for each in (each for its_rows in rows.values() for each in its_rows):
        quarantine(each, "not a picture")
    assert {"sources_have_pairs", "broken_fraction"} == set(broken(validate(tmp_path, rows)))


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


def test_no_verdict_of_older_data_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validate(tmp_path, clean_rows(2))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "broken.csv")

    monkeypatch.setattr(expectations, "scan", full)
    with pytest.raises(ZeroVLError, match="No space left on device; make room"):
        stage.run(settings(), Workspace(tmp_path))
    assert not (tmp_path / "reports/validation/verdict.json").exists()
    assert not (tmp_path / "reports/validation/scratch").exists()
