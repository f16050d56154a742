"""params.yaml: complete, typed, and every error at once with its key, value and fix."""

from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from zerovl import params, params_file
from zerovl.commands import recipe
from zerovl.comparison.parameters import by_key
from zerovl.errors import ZeroVLError
from zerovl.params import FilterParams, Params


def test_the_file_in_the_project_is_the_demo_as_written_by_the_command(tmp_path: Path) -> None:
    recipe.apply("demo", [], tmp_path / "params.yaml")
    assert (tmp_path / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert params_file.load(ROOT / "params.yaml") == Params()


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_says_data_cost_and_score(path: Path, tmp_path: Path) -> None:
    recipe.apply(str(path), [], tmp_path / "params.yaml")
    params_file.load(tmp_path / "params.yaml")
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("data:", "cost:", "score:"):
        assert any(line.startswith(f"# {word}") for line in head), word


def test_a_recipe_that_is_not_there_is_answered_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "photos.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroVLError, match=r"^nope: no such recipe; name auto, demo, recipes/photos\.yaml or a file of"):
        recipe.apply("nope", [], tmp_path / "params.yaml")
    assert not (tmp_path / "params.yaml").exists()


def test_all_errors_are_reported_at_once() -> None:
    values = params.as_dict(Params())
    del values["train"]["lr"]
    values["train"]["bach_size"] = 4
    values["model"]["embed_dim"] = "wide"
    values["evaluate"]["chunk"] = 0
    values["surprise"] = {}
    with pytest.raises(ZeroVLError) as caught:
        params_file.parse(values, "params.yaml")
    message = str(caught.value)
    assert message.startswith("params.yaml: 5 errors")
    for words in (
        "train.lr: missing; add it (the demo has 0.001)",
        "train.bach_size: unknown key (value 4); remove it or correct its spelling (train.batch_size?)",
        "model.embed_dim: 'wide' is not accepted",
        "evaluate.chunk: 0 is not accepted: input should be greater than or equal to 1",
        "surprise: unknown key",
    ):
        assert words in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.micro_batch=50", "batch_size 128 is not a multiple of ranks x micro_batch = 1 x 50"),
        ("model.resize_size=32", "resize_size 32 is smaller than image_size 48"),
        ("train.augment.crop_scale=[1.0, 0.5]", "crop_scale [1.0, 0.5] must be"),
        ("model.text_tower.config={}", "neither a name nor a config"),
        ("data.sources=[{name: a, path: x}, {name: a, path: y}]", "source names must differ"),
        ("train.sampling=random", "train.sampling: 'random' is not accepted"),
        ("prepare.filters.scripts=latin", "scripts: 'latin' is not accepted: write a list, as [a, b]"),
        ("prepare.filters.agreement=x", "agreement: 'x' is not accepted: write its keys with their values, as {key: "),
    ],
)
def test_contradictions_name_both_values_and_the_fix(override: str, words: str) -> None:
    with pytest.raises(ZeroVLError) as caught:
        params_file.from_recipe({}, [override], "here")
    assert words in str(caught.value)


def test_an_override_of_one_option_leaves_the_others(tmp_path: Path) -> None:
    """As DVC's `-S` does it; a mapping that is given whole replaces the one before."""
    options = Params().model.image_tower.options
    changed = params_file.from_recipe({}, ["model.image_tower.options.norm_layer=batchnorm"], "demo")
    assert changed.model.image_tower.options == {**options, "norm_layer": "batchnorm"}
    deeper = params_file.from_recipe(
        {}, ["model.image_tower.options={a: {b: 1, c: 2}}", "model.image_tower.options.a.b=3"], "demo"
    )
    assert deeper.model.image_tower.options == {"a": {"b": 3, "c": 2}}
    whole = params_file.from_recipe({}, ["model.image_tower.options={}"], "demo")
    assert whole.model.image_tower.options == {}


def test_a_text_tower_that_is_named_takes_the_place_of_one_from_scratch() -> None:
    named = params_file.from_recipe({}, ["model.text_tower.name=bert-base-uncased", "train.seed=1"], "demo")
    assert (named.model.text_tower.name, named.model.text_tower.config) == ("bert-base-uncased", {})
    demo = params_file.from_recipe({}, ["model.text_tower.name=''"], "demo")
    assert demo.model.text_tower == Params().model.text_tower
    whole = params_file.from_recipe({}, ["model.text_tower={name: bert-base-uncased}"], "demo")
    assert whole.model.text_tower == named.model.text_tower
    back = params_file.from_recipe({}, ["model.text_tower.name=a", "model.text_tower.name=''"], "demo")
    assert back.model.text_tower == Params().model.text_tower
    for both in (
        "model.text_tower.config={hidden_size: 64}",
        "model.text_tower.config.hidden_size=64",
        "model.text_tower={config: {hidden_size: 64}}",
    ):
        with pytest.raises(ZeroVLError, match=r"both a name and a config; set config to \{\} or name to empty"):
            params_file.from_recipe({}, ["model.text_tower.name=bert-base-uncased", both], "demo")


def test_overrides_read_numbers_as_people_write_them(tmp_path: Path) -> None:
    assert params_file.from_recipe({}, ["train.lr=1e-4"], "x").train.lr == 1e-4
    with pytest.raises(ZeroVLError, match="expected key=value"):
        params_file.from_recipe({}, ["train.lr"], "x")


def test_a_second_recipe_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("train: {seed: 7}")
    (tmp_path / "two.yaml").write_text("train: {epochs: 3}")
    recipe.apply(str(tmp_path / "one.yaml"), [], tmp_path / "params.yaml")
    recipe.apply(str(tmp_path / "two.yaml"), [], tmp_path / "params.yaml")
    settings = params_file.load(tmp_path / "params.yaml")
    assert (settings.train.seed, settings.train.epochs) == (0, 3)


def test_written_comments_do_not_change_the_values(tmp_path: Path) -> None:
    params_file.write(Params(), tmp_path / "p.yaml", head="one\ntwo")
    assert yaml.safe_load((tmp_path / "p.yaml").read_text()) == params.as_dict(Params())


def test_a_file_from_before_there_were_filters_leaves_nothing_out() -> None:
    """Their defaults have changed since; a section that is there is whole, and means what it says."""
    written = params.as_dict(Params())
    assert params_file.parse(written, "p.yaml").prepare.filters == FilterParams(min_side=16, leaks="exact")
    del written["prepare"]["filters"]
    older = params_file.parse(written, "p.yaml")
    assert older.prepare.filters == FilterParams(min_side=0, leaks="keep")
    assert params_file.from_recipe(written, ["train.lr=0.1"], "p.yaml").prepare == older.prepare
    few_keys = {"prepare": {"shard_samples": 100}}
    assert params_file.from_recipe(few_keys, [], "r.yaml").prepare.filters == FilterParams(min_side=16, leaks="exact")
    assert by_key(written, "p.yaml")["prepare.filters.min_side"] == 0
    again = params.as_dict(older)
    assert params_file.parse(again, "p.yaml") == older
    del again["prepare"]["filters"]["leaks"]
    with pytest.raises(ZeroVLError, match=r"prepare\.filters\.leaks: missing"):
        params_file.parse(again, "p.yaml")


def test_sections_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Params().train.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(("text", "words"), [("- 1", "expected a mapping"), ("a: [", "not valid YAML")])
def test_broken_files_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ZeroVLError, match=words):
        params_file.load(tmp_path / "p.yaml")
    with pytest.raises(ZeroVLError, match="no such file"):
        params_file.load(tmp_path / "absent.yaml")
