"""`zerovl recipe auto` on pairs without a valid split: some are set aside, so that a first try has a score."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import raw_sources
from zerovl import cli, params_file
from zerovl.data.manifest import Manifest
from zerovl.data.survey import Survey
from zerovl.planning.first_try import notes
from zerovl.planning.set_aside import set_aside, share_to_draw
from zerovl.workspace import Workspace


def data(valid: dict[str, int], **train: int) -> Survey:
    return Survey("here", train, valid, words=3000, long_caption=12, side=300)


@pytest.mark.parametrize(
    ("train", "share"),
    [
        ({"a": 99}, 0.0),
        ({"a": 100}, 0.2),
        ({"a": 700}, 0.2),
        ({"a": 5_000}, 0.2),
        ({"a": 30_000}, 0.033),
        ({"a": 1_000_000}, 0.001),
        ({"a": 1_000_001}, 0.0),
        ({"a": 100_000, "b": 1_000}, 0.02),  # 20 of the small one
        ({"a": 1_000_000, "b": 100}, 0.0),  # which would be 200,000 of the large one
    ],
)
def test_the_share_gives_each_source_enough_queries_and_takes_no_more_than_needed(
    train: dict[str, int], share: float
) -> None:
    assert share_to_draw(data({}, **train), ()) == share


def test_nothing_is_drawn_where_a_source_has_a_valid_split_or_none_may_be_drawn() -> None:
    assert share_to_draw(data({"a": 5}, a=700, b=700), ()) == 0.0
    assert share_to_draw(data({}, a=700), {"a"}) == 0.0
    assert share_to_draw(data({}, a=700, b=3), {"b"}) == 0.2


def test_what_is_left_is_what_prepare_will_leave() -> None:
    left = set_aside(data({"b": 40}, a=700, b=500, c=300), 0.2, {"c"})
    assert (left.train, left.valid) == ({"a": 560, "b": 500, "c": 300}, {"a": 140, "b": 40})
    assert set_aside(data({}, a=700), 0.0, ()) == data({}, a=700)
    (note,) = notes(data({}, a=5000), None)[1:]
    assert "let prepare.draw_valid draw one" in note


def test_the_command_chooses_alike_before_and_after_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw_sources.write_zerovl(tmp_path / "data/raw/mine", "train", 120)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipe", "auto"]) == 0
    before, said = params_file.load(), capsys.readouterr().out
    assert before.prepare.draw_valid.fraction == 0.2
    assert "no source has validation pairs: about 24 of 120 are set aside for evaluation" in said
    assert "no more than half of 96 pairs" in said
    assert cli.main(["prepare"]) == 0
    assert set(Manifest.load(Workspace().manifest).splits) == {("mine", "train"), ("mine", "valid")}
    assert cli.main(["recipe", "auto"]) == 0
    assert params_file.load() == before


def test_what_the_user_says_of_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw_sources.write_zerovl(tmp_path / "data/raw/mine", "train", 120)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipe", "auto", "prepare.draw_valid.fraction=0"]) == 0
    assert params_file.load().prepare.draw_valid.fraction == 0
    assert "note: no source has validation pairs" in capsys.readouterr().out
    assert cli.main(["recipe", "auto", "prepare.draw_valid={fraction: 0.5}"]) == 0
    assert params_file.load().prepare.draw_valid.fraction == 0.5
    assert "set aside" not in (said := capsys.readouterr().out)
    assert "no more than half of 60 pairs" in said
