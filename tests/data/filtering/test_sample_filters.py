"""Filters that look at one sample: what goes, what stays, and that all of it is counted."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.raw_sources import all_bytes, asked_filters, jpeg, rows, run_prepare, write_csv, write_zerovl
from zerovl.data.filtering.left_out_tables import Tally, first_examples, load_tallies, table_path
from zerovl.data.filtering.sample_filters import KEEP_ALL, SampleFilters, sample_filters
from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader, read_row
from zerovl.data.validation.rules import Rule
from zerovl.params import FilterParams, Params, PrepareParams, ValidateParams
from zerovl.stages import validate
from zerovl.workspace import Workspace


def write_source(folder: Path, pictures: list[tuple[tuple[int, int], list[str]]], split: str = "train") -> None:
    """Pictures of given sizes, each with its captions."""
    table = []
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number, (size, captions) in enumerate(pictures):
        (folder / split / f"{number}.jpg").write_bytes(jpeg(number, size))
        table += [(f"{number}.jpg", number, text, 10 * number + take) for take, text in enumerate(captions)]
    write_csv(folder / f"{split}_anno.csv", table)


def prepared(root: Path, **asked: Any) -> Manifest:
    return run_prepare(root, filters=asked_filters(**asked))


def broken_rules(manifest: Manifest, workspace: Workspace) -> dict[str, Rule]:
    """Rules of the validation that do not hold, without Great Expectations."""
    workspace.validation_report.mkdir(parents=True)
    _, rules = validate._look(manifest, ValidateParams(), workspace)
    return {
        rule.name: rule
        for rule in rules
        if rule.value is not None
        and (rule.value < (rule.minimum or rule.value) or (rule.maximum is not None and rule.value > rule.maximum))
    }


@pytest.mark.parametrize(
    ("filters", "size", "reason"),
    [
        ({"min_side": 32}, (31, 400), "min_side"),
        ({"min_side": 32}, (32, 400), None),
        ({"max_aspect": 2.0}, (101, 50), "max_aspect"),
        ({"max_aspect": 2.0}, (50, 100), None),
        ({"min_area": 1000}, (10, 99), "min_area"),
        ({"min_area": 1000}, (10, 100), None),
    ],
)
def test_a_picture_is_refused_by_its_size(filters: dict[str, Any], size: tuple[int, int], reason: str | None) -> None:
    refusal = SampleFilters.of(FilterParams(**{"min_side": 0} | filters)).refuse_picture(*size)
    assert (refusal.reason if refusal else None) == reason
    assert refusal is None or refusal.detail == f"{size[0]}x{size[1]} pixels"


@pytest.mark.parametrize(
    ("filters", "caption", "reason"),
    [
        ({"min_caption_words": 2}, "dog", "min_caption_words"),
        ({"max_caption_words": 2}, "a brown dog", "max_caption_words"),
        ({"min_caption_words": 2, "max_caption_words": 2}, "brown dog", None),
        ({"min_caption_characters": 4}, "dog", "min_caption_characters"),
        ({"max_caption_characters": 3}, "dogs", "max_caption_characters"),
        ({"scripts": ["latin"]}, "ein Löwe im Käfig", None),
        ({"scripts": ["latin"]}, "собака", "scripts"),
        ({"scripts": ["latin", "cyrillic"]}, "собака", None),
        ({"scripts": ["latin"]}, "2021", None),  # no letter, so no letter of another script
        ({"scripts": ["latin"], "min_script_share": 0.6}, "ab вг", "scripts"),
        ({"scripts": ["latin"]}, "ab вг", None),
        ({"scripts": ["han", "hiragana", "katakana"]}, "公園で遊ぶ犬", None),
        ({"scripts": ["latin"]}, "公園で遊ぶ犬", "scripts"),
    ],
)
def test_a_caption_is_refused_by_its_length_and_its_script(
    filters: dict[str, Any], caption: str, reason: str | None
) -> None:
    refusals = SampleFilters.of(FilterParams(**filters)).refuse_captions([caption])
    assert [refusal.reason if refusal else None for refusal in refusals] == [reason]


def test_what_is_left_out_lies_in_no_shard_and_is_counted(tmp_path: Path) -> None:
    good = ["a dog in the park", "dog"]
    sizes = [((40, 30), good), ((8, 30), good), ((40, 30), ["dog", "cat"]), ((40, 30), ["a grey cat"])]
    write_source(tmp_path / "raw" / "photos", sizes)
    manifest = prepared(tmp_path, min_side=16, min_caption_words=2)
    kept = rows(manifest, "photos")
    assert [(row["image_id"], row["captions"], row["caption_ids"]) for row in kept] == [
        (0, ["a dog in the park"], [0]),
        (3, ["a grey cat"], [30]),
    ]
    shards = ShardReader(tmp_path / "data" / "shards")
    read = [read_row(manifest, shards, "photos", "train", row) for row in range(2)]
    assert [sample.captions for sample in read] == [row["captions"] for row in kept]
    info = manifest.splits["photos", "train"]
    assert (info.pairs, info.captions, info.broken, info.shards[0].samples) == (2, 2, 0, 2)
    assert load_tallies(manifest.folder) == {
        "photos": {"train": {"min_side": Tally(1, 2), "min_caption_words": Tally(1, 3)}}
    }
    examples = first_examples(manifest.folder, "photos", "train")
    assert [(each.key, each.whole, each.captions, each.detail) for each in examples["min_caption_words"]] == [
        ("photos-0", False, ("dog",), "1 word"),
        ("photos-2", False, ("dog",), "1 word"),
        ("photos-2", True, ("cat",), "1 word"),
    ]
    picture = examples["min_side"][0].picture
    assert picture is not None
    assert Image.open(io.BytesIO(picture)).size == (8, 30)


def test_the_table_has_every_entry_and_the_first_pictures(tmp_path: Path) -> None:
    write_source(tmp_path / "raw" / "photos", [((40, 30), ["dog"])] * 9 + [((40, 30), ["a dog"])])
    manifest = prepared(tmp_path, min_caption_words=2)
    table = pq.read_table(table_path(manifest.folder, "photos", "train")).to_pylist()
    assert [entry["key"] for entry in table] == [f"photos-{number}" for number in range(9)]
    assert [entry["picture"] is not None for entry in table] == [True] * 5 + [False] * 4


def test_one_tiny_and_one_leaked_picture_do_not_stop_the_pipeline(tmp_path: Path) -> None:
    """By default; what takes them is what the hard rules of validation would refuse otherwise."""
    folder, workspace = tmp_path / "raw", Workspace(tmp_path)
    write_source(folder / "photos", [((40, 30), ["a dog"]), ((8, 8), ["<b>tiny</b>"]), ((40, 30), ["in valid too"])])
    write_source(folder / "web", [((15, 400), ["a tiny one of valid"]), ((40, 30), ["a cat"])], "valid")
    shutil.copy(folder / "photos/train/2.jpg", folder / "web/valid/1.jpg")
    broken = broken_rules(prepared(tmp_path), workspace)
    assert sorted(name for name, rule in broken.items() if rule.level == "hard") == ["image_side", "leaked"]
    assert "set prepare.filters.min_side: 16 in params.yaml and run `dvc repro`" in broken["image_side"].fix
    assert "set prepare.filters.leaks: exact in params.yaml" in broken["leaked"].fix
    manifest = run_prepare(tmp_path, filters=FilterParams())
    assert [row["image_id"] for row in rows(manifest, "photos")] == [0]
    assert [row["image_id"] for row in rows(manifest, "web", "valid")] == [1]
    validate.run(Params(), workspace)
    verdict = json.loads(workspace.validation_verdict.read_text())
    one = {"samples": 1, "captions": 1}
    assert verdict["left_out"] == {
        "photos": {"train": {"min_side": one, "leaks": one}},
        "web": {"valid": {"min_side": one}},
    }
    page = workspace.validation_page.read_text()
    section = page[page.index("Left out by filters") :]
    for found in ("8x8 pixels", "15x400 pixels", "same bytes as web-1"):
        assert found in section
    assert "data:image/jpeg;base64," in section
    assert "&lt;b&gt;tiny" in section
    assert "<b>tiny" not in page


def test_a_split_that_filters_empty_fails_by_name(tmp_path: Path) -> None:
    write_source(tmp_path / "raw" / "photos", [((40, 30), ["a dog"])])
    write_source(tmp_path / "raw" / "photos", [((8, 8), ["a dog"])], "valid")
    rule = broken_rules(prepared(tmp_path, min_side=16), Workspace(tmp_path))["sources_have_pairs"]
    assert [each["key"] for each in rule.examples] == ["photos/valid"]
    assert "loosen prepare.filters" in rule.fix


def test_filters_that_leave_nothing_out_change_no_byte(tmp_path: Path) -> None:
    for root in (tmp_path / "off", tmp_path / "on"):
        write_zerovl(root / "raw" / "photos", "train", 6)
    prepared(tmp_path / "off")
    prepared(tmp_path / "on", min_side=8, min_caption_words=1, scripts=["latin"])
    off, on = (all_bytes(tmp_path / name / "data") for name in ("off", "on"))
    assert off == on
    assert sample_filters(FilterParams()) == SampleFilters(min_side=16)
    assert sample_filters(FilterParams(min_side=0)) is KEEP_ALL


def test_any_number_of_processes_leaves_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for workers in ("1", "2"):
        root = tmp_path / workers
        write_source(root / "raw" / "photos", [((8 + 4 * n, 30), ["a dog", "犬"]) for n in range(10)])
        monkeypatch.setenv("ZEROVL_WORKERS", workers)
        prepared(root, min_side=20, scripts=["latin"])
        found.append(all_bytes(root / "data"))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"max_aspect": 0.5}, "max_aspect is 0.5.*set it to 1 or"),
        ({"min_caption_words": 5, "max_caption_words": 3}, "min_caption_words is 5 and max_caption_words is 3"),
        ({"scripts": ["klingon"]}, "latin"),
    ],
)
def test_contradictions_are_refused(filters: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PrepareParams(filters=FilterParams(**filters))
