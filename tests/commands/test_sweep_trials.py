"""The trials of `zerovl sweep`: their names, their values as DVC reads them, and which of many are drawn."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from zerovl.commands import sweep
from zerovl.commands.sweep import Trial


def test_names_tell_settings_and_commits_apart() -> None:
    given = [("train.image_size", 32, "a"), ("model.image_size", 32, "a"), ("train.image_size", 32, "b")]
    names = [Trial({key: value}, commit).name for key, value, commit in given]
    assert len(set(names)) == 3
    assert all(name.startswith("image-size-32-") for name in names)
    assert Trial({"train.loss": "sigmoid"}, "a").name.startswith("loss-sigmoid-")


def test_drawn_are_those_that_the_same_draw_from_a_list_gives() -> None:
    """So a sweep that was begun goes on by the same names."""
    few = sweep.combinations(["a=1,2,3", "b=x,y", "c=0.1,0.2,0.3"], "c")
    listed = [dict(zip("abc", values, strict=True)) for values in itertools.product(*few.values.values())]
    assert [trial.settings for trial in few.drawn(18, 0)] == listed
    assert [trial.settings for trial in few.drawn(7, 5)] == random.Random(5).sample(listed, 7)
    twenty = ",".join(map(str, range(1, 21)))
    many = sweep.combinations([f"k{number}={twenty}" for number in range(20)], "c")
    assert len({trial.name for trial in many.drawn(50, 0)}) == 50


def test_equal_values_are_one_and_the_order_of_keys_is_none_of_the_name() -> None:
    found = sweep.combinations(["a.b=0.001,2,1e-3,2.0,true,1,x,x,[1],[true],[1.0]"], "c")
    assert found.values["a.b"] == [0.001, 2, True, 1, "x", [1], [True]]
    assert Trial({"a": 1, "b": "x"}, "c").name == Trial({"b": "x", "a": 1}, "c").name


@pytest.mark.parametrize(
    "value",
    ["données", "a\\b", 'a"b', 'a\\"b', "ends\\", "", "[a], b=c", "null", ["é", "a\\", 1, True, None], 1e-3, None],
)
def test_dvc_reads_each_value_as_it_was_given(value: Any) -> None:
    override = OverridesParser.create().parse_override(Trial({"data.raw": value}, "c").overrides[0])
    assert (override.key_or_group, override.value()) == ("data.raw", value)
