"""`zerovl recipe auto`: settings that can train, for data of any size, with what stands on the machine."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support import raw_sources, tiny_project
from tests.support.registries import publish
from zerovl import cli, params_file
from zerovl.data import survey as looking
from zerovl.data.batches.sampling import make_sampler
from zerovl.data.survey import Survey, survey
from zerovl.errors import ZeroVLError
from zerovl.params import DataParams, Params, SourceParams
from zerovl.planning import first_try
from zerovl.planning.first_try import Choice, Given, Towers, choose, find_towers, notes
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.training.learning import STEPS_FROM_SCRATCH, STEPS_FROM_WEIGHTS
from zerovl.workspace import Workspace

TOWERS = Towers(Path("towers/image.safetensors"), Path("towers/text"))


def data(side: int = 300, **train: int) -> Survey:
    return Survey("here", train, dict.fromkeys(train, 200), words=3000, long_caption=12, side=side)


def settings(chosen: list[Choice]) -> Params:
    """The demo with the choices."""
    changes: dict[str, Any] = {}
    for choice in chosen:
        value: Any = choice.value
        for part in reversed(choice.key.split(".")):
            value = {part: value}
        changes = params_file.merge(changes, value)
    return params_file.from_recipe(changes, [], "auto")


@pytest.mark.parametrize("towers", [None, TOWERS])
@pytest.mark.parametrize("pairs", [3, 40, 700, 6_000, 100_000, 3_000_000, 100_000_000])
def test_data_of_any_size_can_be_trained_on(pairs: int, towers: Towers | None) -> None:
    for sizes in ({"a": pairs}, {"a": pairs, "b": max(2, pairs // 30), "c": pairs}):
        found = data(**sizes)
        chosen = choose(found, towers)
        assert len({choice.key for choice in chosen}) == len(chosen)
        assert all(choice.reason for choice in chosen)
        train = settings(chosen).train
        sampler = make_sampler(train.sampling, found.train, train.batch_size, min(train.epochs, 2.0), 0)  # no repeats
        steps = train.epochs * found.pairs / train.batch_size
        if pairs >= 700:
            assert steps >= (STEPS_FROM_WEIGHTS if towers else STEPS_FROM_SCRATCH)
            assert train.warmup_fraction * steps >= 10
        assert sampler.steps >= 1
        assert 1 <= train.epochs <= 60


@pytest.mark.parametrize(
    ("pairs", "batch", "of_batch", "epochs", "of_epochs"),
    [
        (3, 2, "the least with a negative", 60, "90 steps, fewer than the 400 aimed at: 60 epochs at most"),
        (60, 16, "no more than half of 60 pairs", 60, "225 steps, fewer than the 400 aimed at: 60 epochs at most"),
        (700, 64, "64 at least, for enough negatives; a 32nd of 700 pairs is 21", 37, "405 steps, and 400 at least"),
        (4_096, 128, "a 32nd of 4,096 pairs is 128; rounded down", 20, "the paper's 20 epochs: 640 steps, and 400"),
        (6_000, 128, "a 32nd of 6,000 pairs is 187; rounded down", 20, "the paper's 20 epochs: 938 steps, and 400"),
        (
            1_000_000,
            16384,
            "the paper's, and no more; a 32nd of 1,000,000 pairs is 31,250",
            20,
            "the paper's 20 epochs",
        ),
    ],
)
def test_a_reason_names_the_bound_that_made_the_value(
    pairs: int, batch: int, of_batch: str, epochs: float, of_epochs: str
) -> None:
    chosen = {choice.key: choice for choice in choose(data(a=pairs), TOWERS)}
    assert chosen["train.batch_size"].value == batch
    assert chosen["train.batch_size"].reason.startswith(of_batch)
    assert chosen["train.epochs"].value == epochs
    assert chosen["train.epochs"].reason.startswith(of_epochs)


def test_a_value_at_its_limit_says_so() -> None:
    tiny = {choice.key: choice for choice in choose(Survey("here", {"a": 60}, {}, 120, 90, 20), None)}
    said = {key: (choice.value, choice.reason.rpartition("; ")[2]) for key, choice in tiny.items()}
    assert said["prepare.tokenizer_vocab"] == (500, "500 at least")
    assert said["model.max_tokens"] == (64, "this at most")
    assert said["model.image_size"] == (32, "32 is the least that a tower is given")
    assert said["train.warmup_fraction"] == (0.1, "a tenth at most")
    assert said["train.valid_checks"] == (0, "no source has validation pairs")
    large = {choice.key: choice.reason for choice in choose(data(a=7_000_000), TOWERS)}
    assert large["train.warmup_fraction"].endswith("; the paper's fraction")
    assert large["model.max_tokens"].endswith("; the paper's")


def test_the_papers_size_gets_the_papers_numbers() -> None:
    train = settings(choose(data(a=7_000_000, b=7_200_000), TOWERS)).train
    assert (train.batch_size, train.epochs, train.lr, train.warmup_fraction) == (16384, 20.0, 1e-4, 0.025)
    assert (train.sampling, train.mixup) == ("debiased", "coin")
    model = settings(choose(data(a=7_000_000), TOWERS)).model
    assert (model.image_size, model.resize_size) == (224, 256)


@pytest.mark.parametrize(
    ("side", "pairs", "towers", "expected"),
    [
        (64, 700, None, 64),
        (50, 700, None, 48),
        (10, 700, None, 32),
        (1000, 700, None, 64),
        (1000, 50_000, None, 128),
        (1000, 700, TOWERS, 224),
        (64, 700, TOWERS, 96),
        (150, 700, TOWERS, 128),
    ],
)
def test_the_image_size_follows_pictures_pairs_and_towers(
    side: int, pairs: int, towers: Towers | None, expected: int
) -> None:
    assert settings(choose(data(side, a=pairs), towers)).model.image_size == expected


def test_pretrained_towers_are_taken_where_both_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "towers"
    assert find_towers(tmp_path) is None
    (folder / first_try.TEXT_TOWER).mkdir(parents=True)
    (folder / first_try.TEXT_TOWER / "config.json").write_text("{}")
    assert find_towers(tmp_path) is None
    (folder / first_try.IMAGE_WEIGHTS).write_bytes(b"weights")
    found = find_towers(tmp_path)
    assert found == Towers(folder / first_try.IMAGE_WEIGHTS, folder / first_try.TEXT_TOWER)
    values = {choice.key: choice.value for choice in choose(data(a=700), found)}
    assert values["model.image_tower.weights"] == str(folder / first_try.IMAGE_WEIGHTS)
    assert values["model.text_tower.name"] == str(folder / first_try.TEXT_TOWER)


def test_a_tower_that_is_given_has_nothing_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_project.make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "towers" / first_try.TEXT_TOWER).mkdir(parents=True)
    (tmp_path / "towers" / first_try.TEXT_TOWER / "config.json").write_text("{}")
    (tmp_path / "towers" / first_try.IMAGE_WEIGHTS).write_bytes(b"weights")
    assert cli.main(["recipe", "auto", "data.raw=raw", "model.text_tower.name=bert-base-uncased"]) == 0
    made = params_file.load("params.yaml")
    assert (made.model.text_tower.name, made.model.text_tower.config) == ("bert-base-uncased", {})
    assert made.prepare.tokenizer_vocab == 0
    assert (made.model.image_tower.weights, made.train.freeze) == ("", [])  # a pair, or none of it
    for same in (f"model.image_tower.name={Params().model.image_tower.name}", "model.text_tower.name=''"):
        assert cli.main(["recipe", "auto", "data.raw=raw", same]) == 0
        made = params_file.load("params.yaml")
        assert made.model.image_tower.options["layers"]
        assert made.model.text_tower.config
    assert cli.main(["recipe", "auto", "data.raw=raw", "model.image_tower.name=vit_tiny_patch16_224"]) == 0
    made = params_file.load("params.yaml")
    assert (made.model.image_tower.options, made.model.image_tower.weights) == ({}, "")
    assert made.model.text_tower.config
    assert made.prepare.tokenizer_vocab > 0
    assert not any("towers start from random" in note for note in notes(data(a=5000), None, Given(text_tower=True)))


def test_what_stands_in_the_way_is_said() -> None:
    assert any("make towers" in note for note in notes(data(a=5000), None))
    assert notes(data(a=5000), TOWERS) == []
    few = Survey("here", {"a": 5000}, {"a": 40}, 1, 1, 64)
    assert "few validation pairs (a 40)" in notes(few, TOWERS)[0]
    assert "no source has validation pairs" in notes(Survey("here", {"a": 5000}, {}, 1, 1, 64), TOWERS)[0]


def test_raw_sources_and_their_manifest_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = tiny_project.make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    params = tiny_project.recipe()
    prepared = survey(params, Workspace())
    assert prepared.origin == "data/manifest"
    workspace.manifest_file.rename(tmp_path / "away.json")
    raw = survey(params, Workspace())
    assert (
        (raw.train, raw.valid)
        == (prepared.train, prepared.valid)
        == ({"alpha": 48, "beta": 48}, {"alpha": 8, "beta": 8})
    )
    assert (raw.words, raw.long_caption, raw.side) == (prepared.words, prepared.long_caption, prepared.side)
    assert raw.side == 40


def test_a_manifest_of_other_sources_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_project.make_project(tmp_path)
    (tmp_path / "raw" / "beta").rename(tmp_path / "raw" / "gamma")
    monkeypatch.chdir(tmp_path)
    assert list(survey(tiny_project.recipe(), Workspace()).train) == ["alpha", "gamma"]


def test_pictures_in_tars_are_measured_and_broken_ones_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for number in range(3):
            picture = io.BytesIO()
            Image.new("RGB", (90, 70)).save(picture, "PNG")
            members = ((".png", picture.getvalue() if number else b"no picture"), (".txt", b"a box"))
            for ending, content in members:
                info = tarfile.TarInfo(f"{number:09d}{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    found = survey(Params(data=DataParams(raw=str(tmp_path))), Workspace(tmp_path / "none"))
    assert (found.pairs, found.valid, found.side, found.words) == (3, {}, 70, 2)


def test_what_cannot_be_counted_is_an_error_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = SourceParams(name="web", path="s3://bucket/web", layout="webdataset")
    monkeypatch.setattr(looking, "resolve", lambda *_: [looking.Source("web", remote.path, None, ("train",), "test")])
    with pytest.raises(ZeroVLError, match="run `zerovl prepare`, then this command again"):
        survey(Params(), Workspace(tmp_path))
    monkeypatch.setattr(looking, "resolve", lambda *_: [])
    with pytest.raises(ZeroVLError, match="no source has training pairs"):
        survey(Params(), Workspace(tmp_path))


def test_a_source_without_training_pairs_is_told_with_what_it_lacks(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        raw_sources.write_zerovl(tmp_path / name, "valid", 2)
    (tmp_path / "mine" / "train").mkdir()  # with pictures, and no train_anno.csv
    with pytest.raises(ZeroVLError) as raised:
        survey(Params(data=DataParams(raw=str(tmp_path))), Workspace(tmp_path / "none"))
    _, mine, other = str(raised.value).splitlines()
    known = "(zerovl layout, train_anno.csv or valid_anno.csv) has no train split that is wanted"
    assert mine == f"  mine: {tmp_path / 'mine'} {known}, though train/ is there"
    assert other == f"  other: {tmp_path / 'other'} {known}"


def test_the_command_writes_a_file_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_project.make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipe", "auto", "data.raw=raw", "train.epochs=3", "--out", "own.yaml"]) == 0
    said = capsys.readouterr().out
    assert "chosen for 96 training pairs of 2 sources (data/manifest):" in said
    assert "note: few validation pairs (alpha 8, beta 8)" in said
    params = params_file.load("own.yaml")
    assert (params.train.epochs, params.train.batch_size, params.data.raw) == (3.0, 32, "raw")
    text = Path("own.yaml").read_text()
    assert text.startswith("# Written by: zerovl recipe auto data.raw=raw train.epochs=3\n# Every key is needed;")
    assert "# train.batch_size: 32: no more than half of 96 pairs" in text
    assert "# train.epochs:" not in text  # it was given
    assert cli.main(["recipe", "auto", "data.raw=nowhere"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_what_follows_from_a_setting_follows_from_the_one_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_project.make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = ["train.batch_size=16", "train.epochs=5", "model.image_size=96"]
    assert cli.main(["recipe", "auto", "data.raw=raw", *given]) == 0
    said = capsys.readouterr().out
    assert "3 of 30 steps; a tenth at most" in said
    assert "a score about every 15 steps" in said
    assert "times the root of 16/128" in said
    params = params_file.load()
    assert (params.train.micro_batch, params.train.lr, params.train.valid_checks) == (16, 0.00035, 2)
    assert (params.model.image_size, params.model.resize_size) == (96, 110)
    assert cli.main(["recipe", "auto", "data.raw=raw", "train.batch_size=90"]) == 0
    assert "64 steps, fewer than the 1,000 aimed at" in capsys.readouterr().out
    assert params_file.load().train.micro_batch == 45
    assert cli.main(["recipe", "auto", "data.raw=raw", "train.batch_size=many"]) == 2
    assert "train.batch_size" in capsys.readouterr().err


def test_own_sources_in_their_usual_place_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_project.make_project(tmp_path)
    (tmp_path / "raw").rename(tmp_path / "data" / "raw")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipe", "auto"]) == 0
    assert params_file.load().data.raw == "data/raw"


def test_a_name_that_has_releases_is_told_unless_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_project.make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    auto, told = ["recipe", "auto", "data.raw=raw"], "register.name is zerovl, which has releases in registry"
    assert cli.main(auto) == 0
    assert told not in capsys.readouterr().out
    assert not Path("registry").exists()  # looking for releases makes no store
    publish(Registry(open_store("registry")), {"model.safetensors": b"weights"})
    assert cli.main(auto) == 0
    assert told in capsys.readouterr().out
    for asked in ("register.name=zerovl", "register.name=mine", "register.store=s3://models/team"):
        assert cli.main([*auto, asked]) == 0
        assert told not in capsys.readouterr().out
