"""The keys that a form offers: all of them, with their sentence; a value is checked before a run is made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import build_error_obj, validate

from flows.retrain import retrain
from flows.settings import Setting, as_overrides, offers
from flows.train import train
from zerovl import params_file
from zerovl.params import Params

LINES = {offer.key: offer.text for offer in offers()}


def problems(flow: Any, *settings: dict[str, Any]) -> list[Any]:
    """What the server answers to the form."""
    found: list[Any] = build_error_obj(validate({"settings": list(settings)}, flow.parameters.model_dump()))["errors"]
    return found


def test_every_key_is_offered_and_its_value_in_the_demo_is_taken() -> None:
    chosen = [{"key": offer.text, "value": _as_typed(offer.demo)} for offer in offers()]
    for flow in (train, retrain):
        assert problems(flow, *chosen) == []
    settings = train.validate_parameters({"settings": chosen})["settings"]
    assert params_file.from_recipe({"train": {"lr": 0.5}}, as_overrides(settings), "the form") == Params()
    assert len(LINES) == len(chosen) > 150


def test_a_line_has_sentence_choices_and_the_value_of_the_demo() -> None:
    assert LINES["train.lr"] == "train.lr: peak learning rate (demo: 0.001)"
    assert LINES["train.precision"].endswith('(float32 | bf16 | fp16; demo: "float32")')
    assert LINES["model.image_tower.options"].endswith(" ...)")  # long values are cut


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.lr", "much", "'much' does not match"),
        ("train.batch_size", "12.5", "'12.5' does not match"),
        ("train.mixup", "coins", "'coins' is not one of ['none', 'coin', 'image', 'text']"),
        ("machine.compile", "maybe", "'maybe' is not one of ['true', 'false']"),
    ],
)
def test_the_form_says_beside_the_value_what_does_not_fit_its_key(key: str, value: str, words: str) -> None:
    (found,) = problems(train, {"key": LINES["train.seed"], "value": "1"}, {"key": LINES[key], "value": value})
    (item,) = found["errors"]
    assert (found["property"], item["index"]) == ("settings", 1)
    (said,) = item["errors"]
    assert said["property"] == "value"
    assert said["errors"][0].startswith(words)


def test_a_key_that_is_not_offered_and_one_without_a_value_are_refused() -> None:
    assert "is not one of" in json.dumps(problems(train, {"key": "train.lrr", "value": "1"}))
    assert json.dumps(problems(train, {"key": LINES["train.lr"]})).count("required") == 1
    assert json.dumps(problems(train, {"value": "x"})).count("required") == 1


def test_what_surrounds_key_and_value_is_left_out() -> None:
    assert as_overrides([Setting(key=LINES["register.alias"], value=" '' \n")]) == ["register.alias=''"]


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
