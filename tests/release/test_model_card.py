"""The card that goes with a release."""

from __future__ import annotations

from typing import Any

import pytest

from zerovl import params_file
from zerovl.interop.export import FORMATS
from zerovl.params import Params
from zerovl.release import model_card

METRICS = {"overall": {"rsum": 90.0, "images": 3}, "sources": {}}


@pytest.mark.parametrize(
    ("run", "lines"),
    [
        ({"fingerprint": "aa", "parent": {"run": "3f2a90c1", "step": 1200}}, ["run 3f2a90c1 after its step 1200"]),
        ({"fingerprint": "aa", "parent": None}, []),
        (None, []),  # a run of before there were parents
    ],
)
def test_the_run_that_it_goes_on_from(run: dict[str, Any] | None, lines: list[str]) -> None:
    origin = {} if run is None else {"run": run}
    card = model_card.render(Params(), METRICS, {}, origin, usage="", details={})
    found = [line.partition("goes on from: ")[2] for line in card.splitlines() if "goes on from" in line]
    assert [line.partition(",")[0] for line in found] == lines


@pytest.mark.parametrize(
    ("changes", "image", "text"),
    [
        ({}, "resnet18 (from scratch)", "BERT from a configuration (from scratch)"),
        (
            {"model": {"image_tower": {"pretrained": True}}, "train": {"freeze": ["image"]}},
            "resnet18 (from published weights, frozen)",
            "BERT from a configuration (from scratch)",
        ),
        (
            {
                "model": {
                    "image_tower": {"name": "tf_efficientnet_lite0", "weights": "towers/lite0.safetensors"},
                    "text_tower": {"name": "towers/MiniLM", "pretrained": True, "config": {}},
                },
                "train": {"freeze": ["image", "text"]},
            },
            "tf_efficientnet_lite0 (from the weights of lite0.safetensors, frozen)",
            "towers/MiniLM (from published weights, frozen)",
        ),
        (
            {
                "model": {"image_tower": {"weights": "towers/lite0.safetensors"}},
                "train": {"init_from": "../elsewhere/model", "fine_tuning": {"freeze_text_blocks": 1}},
            },
            "resnet18 (from the weights of model)",
            "BERT from a configuration (from the weights of model, its first block frozen)",
        ),
        (
            {"train": {"continue_from": "3f2a90c1@1200", "fine_tuning": {"freeze_image_blocks": 2}}},
            "resnet18 (from the weights of 3f2a90c1@1200, its first 2 blocks frozen)",
            "BERT from a configuration (from the weights of 3f2a90c1@1200)",
        ),
    ],
)
def test_what_the_towers_began_with_and_whether_they_learned(changes: dict[str, Any], image: str, text: str) -> None:
    params = params_file.from_recipe(changes, [], "test")
    card = model_card.render(params, METRICS, {}, {}, usage="", details={})
    assert f"Image tower: {image}; text tower: {text}. Trained" in card


def test_a_score_of_the_training_is_said_to_be_of_a_sample() -> None:
    origin = {"training": {"steps": 225, "valid_rsum": 577.0}}
    card = model_card.render(Params(), METRICS, {}, origin, usage="", details={})
    training = card[card.index("## Training\n") : card.index("## Provenance")]
    assert "- valid_rsum: 577\n\n`valid_rsum` and its like were measured during training, on a fixed sample" in training
    unscored = model_card.render(Params(), METRICS, {}, {"training": {"steps": 225}}, usage="", details={})
    assert "fixed sample: evenly" not in unscored


def test_the_task_of_the_hub_is_named_where_it_was_measured() -> None:
    assert "pipeline_tag" not in model_card.render(Params(), METRICS, {}, {}, usage="", details={})
    table = {"overall": {"top1": 20.0, "top1_low": 18.0, "top1_high": 22.0}, "sources": {}}
    card = model_card.render(Params(), {**METRICS, "evaluators": {"classes": table}}, {}, {}, usage="", details={})
    assert "library_name: zerovl\npipeline_tag: zero-shot-image-classification\ntags:" in card
    assert "zerovl export MODEL --to open-clip" in card


def test_the_pairs_of_classes_that_are_confused_most() -> None:
    metrics = {**METRICS, "evaluators": {"pets": {"overall": {"top1": 20.0}, "sources": {}}}}
    pairs = [{"class": f"cat|{n}", "taken_for": "*dog*\n<b>", "pictures": 9 - n, "of": 1200} for n in range(6)]
    card = model_card.render(Params(), metrics, {}, {}, usage="", details={"pets": {"confusions": pairs}})
    rows = [line for line in card.splitlines() if line.startswith("| cat")]
    assert rows[0] == r"| cat\|0 | \*dog\* \<b\> | 9 of 1,200 |"
    assert len(rows) == 5
    assert card.index("### pets") < card.index(rows[0]) < card.index("## Limits")
    nothing = model_card.render(Params(), metrics, {}, {}, usage="", details={"pets": {"confusions": []}})
    assert "taken for" not in nothing


def test_it_has_the_lines_for_each_form_of_export() -> None:
    """The same as in the README.md of an export, where the tests of `tests/interop` run them."""
    card = model_card.render(Params(), METRICS, {}, {}, usage="", details={})
    for form, its in FORMATS.items():
        assert len(its.usage.splitlines()) == 3
        assert f"`zerovl export MODEL --to {form} --out DIR`\n\n```python\n{its.usage}\n```" in card
    refused = {"hugging-face": "its text tower bert is pooled by 'mean'", "onnx": ""}
    card = model_card.render(Params(), METRICS, {}, {}, usage="", details={}, refused=refused)
    assert "`--to hugging-face` is not for this model: its text tower bert is pooled by 'mean'." in card
    assert FORMATS["hugging-face"].usage not in card
    assert FORMATS["onnx"].usage in card


def test_one_source_is_one_row_and_no_mean() -> None:
    block = {"rsum": 90.0, "images": 3}
    metrics = {"mean": block, "overall": block, "sources": {"web": block}}
    card = model_card.render(Params(), metrics, {}, {}, usage="", details={})
    rows = [line.split(" | ")[0] for line in card.splitlines() if line.startswith("| ") and "90.0" in line]
    assert rows == ["| web"]
    assert "mean over sources" not in card
