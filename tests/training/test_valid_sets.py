"""Sets with classes during training: what a check says is what the evaluation says of the same weights."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.fake_world import png
from tests.support.real_world import make_model, make_project, settings
from tests.support.thread_ranks import ThreadRank, on_ranks
from zerovl.data.raw.records import Picture
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.classification.evaluator import Classification
from zerovl.evaluation.classification.sets import LabelledPicture, LabelledSet
from zerovl.evaluation.metrics import Block
from zerovl.model.encoder import Encoder
from zerovl.model.text import CaptionTokenizer
from zerovl.params import ClassificationParams, Params
from zerovl.training import fingerprint, valid_sets
from zerovl.training.passes import Towers
from zerovl.training.start_block import without_effect
from zerovl.training.valid_sets import read_checks
from zerovl.workspace import Workspace

EXACT = Precision("float32", torch.device("cpu"))
COLOURS = {"red": (230, 10, 20), "green": (20, 220, 10), "dark blue": (10, 30, 140)}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project with a model and a set of three classes of four pictures, one of them broken."""
    space = make_project(tmp_path_factory.mktemp("project"), sources=("alpha",))
    make_model(space, seed=3)
    for name, (red, green, blue) in COLOURS.items():
        folder = space.root / "set" / name
        folder.mkdir(parents=True)
        for number in range(4):
            (folder / f"{number}.png").write_bytes(png((red, green, blue + 20 * number), side=40))
    (space.root / "set" / "green" / "2.png").write_bytes(b"")
    return space


def evaluated(params: Params, encoder: Encoder) -> Block:
    """What `zerovl evaluate` says of the first set."""
    evaluation = object.__new__(Evaluation)
    for name, value in {"settings": params.evaluate, "model": encoder, "untrained": encoder, "ranks": ALONE}.items():
        object.__setattr__(evaluation, name, value)
    return Classification.of(params.evaluate.classification[0]).evaluate(evaluation).overall


def checked(params: Params, encoder: Encoder) -> dict[str, float]:
    """What a check says of it."""
    (check,) = read_checks(params, encoder.tokenizer, ALONE)
    with torch.no_grad():
        return check.score(Towers(encoder.model, ALONE, False, lambda: None, EXACT))


def with_set(workspace: Workspace, *overrides: str) -> Params:
    one = (
        f"evaluate.classification=[{{name: colours, folder: {workspace.root / 'set'}, templates: ['a {{}}', '{{}}']}}]"
    )
    return settings(workspace.root, one, *overrides)


def noisy_set(folder: Path, split: bool) -> str:
    """Two classes of eight pictures that can hardly be told apart, with another sixteen to learn from or without."""
    draw = np.random.default_rng(0)
    for name in ("even", "odd"):
        for number in range(8):
            colour = tuple(int(value) for value in draw.integers(90 + 40 * (name == "odd"), 170, 3))
            path = folder / "set" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(colour, side=40))  # type: ignore[arg-type]
    if not split:
        return f"folder: {folder / 'set'}"
    for part in ("test", "train"):
        (folder / "tars" / part).mkdir(parents=True)
        write_tar(folder / "tars" / part / "0.tar", sorted((folder / "set").rglob("*.png")))
    (folder / "tars" / "classnames.txt").write_text("even\nodd\n")
    return f"shards: {folder / 'tars'}"


def write_tar(path: Path, pictures: Sequence[Path]) -> None:
    """Write pictures as CLIP_benchmark has them."""
    with tarfile.open(path, "w") as tar:
        for number, picture in enumerate(pictures):
            label = b"1" if picture.parent.name == "odd" else b"0"
            for suffix, data in (("png", picture.read_bytes()), ("cls", label)):
                info = tarfile.TarInfo(f"s{number:04d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def probed(place: str, override: str, *more: str) -> Params:
    sets = ", ".join([f"{{name: noise, {place}, templates: name, measures: [zero_shot, linear_probe]}}", *more])
    return settings(Path("x"), f"evaluate.classification=[{sets}]", override)


def tokenizer(workspace: Workspace) -> CaptionTokenizer:
    return CaptionTokenizer(workspace.tokenizer, 16)


def test_a_check_equals_the_evaluation_of_the_same_weights(workspace: Workspace) -> None:
    params = with_set(workspace, "train.valid_set_pictures=100")
    encoder = Encoder.load(workspace.model)
    marks: list[int] = []
    (check,) = read_checks(params, encoder.tokenizer, ALONE)
    with torch.no_grad():
        found = check.score(Towers(encoder.model, ALONE, False, lambda: marks.append(1), EXACT))
    expected = evaluated(params, encoder)
    assert found == {"valid_colours_top1": pytest.approx(expected["top1"].value)}
    assert expected["pictures"].value == 11
    assert len(marks) == 2  # a pass of pictures, one of captions


@pytest.mark.parametrize("split", [False, True], ids=["folds", "train split"])
def test_a_probe_equals_the_evaluations(workspace: Workspace, tmp_path: Path, split: bool) -> None:
    params, encoder = probed(noisy_set(tmp_path, split), "train.valid_set_pictures=16"), Encoder.load(workspace.model)
    found, expected = checked(params, encoder), evaluated(params, encoder)
    assert found["valid_noise_probe_top1"] == pytest.approx(expected["probe_top1"].value)
    assert 0 < found["valid_noise_probe_top1"] < 100  # right and wrong ones
    assert found["valid_noise_top1"] == pytest.approx(expected["top1"].value)
    learned = ", with 16 pictures of its train split" if split else ""
    (said,) = valid_sets.describe(params, ["photos"])
    assert said.endswith(f"captions of 2 classes, and fits its linear probe{learned}")


def test_a_probe_with_a_class_of_one_picture_equals_the_evaluations(workspace: Workspace, tmp_path: Path) -> None:
    place = noisy_set(tmp_path, False)
    for number in range(7):
        (tmp_path / "set" / "odd" / f"{number}.png").write_bytes(b"")
    params, encoder = probed(place, "train.valid_set_pictures=16"), Encoder.load(workspace.model)
    found, expected = checked(params, encoder), evaluated(params, encoder)
    assert expected["pictures"].value == 9
    assert found["valid_noise_probe_top1"] == pytest.approx(expected["probe_top1"].value)


def test_a_probe_needs_all_pictures(workspace: Workspace, tmp_path: Path) -> None:
    params, encoder = probed(noisy_set(tmp_path, False), "train.valid_set_pictures=15"), Encoder.load(workspace.model)
    assert checked(params, encoder).keys() == {"valid_noise_top1"}
    (said,) = valid_sets.describe(params, ["photos"])
    assert "; its linear probe waits for `zerovl evaluate`, for with fewer than all 16 pictures" in said


def test_what_no_probe_learns_from_is_refused_at_the_start(workspace: Workspace, tmp_path: Path) -> None:
    place = noisy_set(tmp_path, False)
    for name in ("even", "odd"):
        for number in range(7):
            (tmp_path / "set" / name / f"{number}.png").write_bytes(b"")
    with pytest.raises(ZeroVLError, match="no class has 2 pictures that can be read, and a linear probe is asked"):
        read_checks(probed(place, "train.valid_set_pictures=16"), tokenizer(workspace), ALONE)
    again = f"{{name: noise_probe, folder: {workspace.root / 'set'}}}"
    with pytest.raises(ZeroVLError, match=r"noise and noise_probe: .* one column, valid_noise_probe_top1"):
        read_checks(probed(place, "train.valid_set_pictures=16", again), tokenizer(workspace), ALONE)


def test_fewer_pictures_are_spread_over_the_classes(workspace: Workspace) -> None:
    (check,) = read_checks(with_set(workspace, "train.valid_set_pictures=4"), tokenizer(workspace), ALONE)
    assert sorted(set(check.labels.tolist())) == [0, 1, 2]
    assert sum(check.pictures.sizes) <= 4


def test_nothing_is_read_by_default_and_the_block_says_the_cost(workspace: Workspace) -> None:
    assert read_checks(with_set(workspace), tokenizer(workspace), ALONE) == []
    assert valid_sets.describe(with_set(workspace), ["photos"]) == []
    asked = with_set(workspace, "train.valid_set_pictures=5", "train.valid_checks=3")
    assert valid_sets.describe(asked, ["photos"]) == [
        "colours is classified too: each of 3 checks embeds 5 of its 12 pictures and 6 captions of 3 classes"
    ]
    (without,) = valid_sets.describe(asked, [])
    assert without.startswith("colours not classified on the way: ")
    assert "no source has a valid split" in without
    notes = without_effect(settings(workspace.root, "train.valid_set_pictures=5"))
    assert any(note.startswith("train.valid_set_pictures 5 has no effect") for note in notes)
    with pytest.raises(ZeroVLError, match="no such folder"):
        read_checks(
            settings(
                Path("x"), "train.valid_set_pictures=5", "evaluate.classification=[{name: gone, folder: nowhere}]"
            ),
            tokenizer(workspace),
            ALONE,
        )


def test_ranks_that_list_a_set_differently_all_say_so() -> None:
    """As on nodes with unlike copies."""
    settings = ClassificationParams(name="pets", folder="sets/pets")
    pictures = tuple(LabelledPicture(f"{number}.png", Picture(f"{number}.png"), number % 2) for number in range(4))
    whole, other = LabelledSet(("cat", "dog"), pictures), LabelledSet(("cat", "dog"), pictures[:3])

    def said(its: ThreadRank, sets: Sequence[LabelledSet]) -> str:
        try:
            ranks = Ranks(its.rank, its.world_size, ALONE.device, its)  # type: ignore[arg-type]
            valid_sets._require_same(settings, sets[its.rank], ranks)
        except ZeroVLError as error:
            return str(error)
        return ""

    assert on_ranks(3, lambda its: said(its, [whole] * 3)) == [""] * 3
    words = "evaluate.classification: pets: rank 2 lists 3 pictures of 2 classes in sets/pets, rank 0 4 of 2, and "
    found = on_ranks(3, lambda its: said(its, [whole, whole, other]))
    assert len(set(found)) == 1
    assert found[0].startswith(words)
    renamed = LabelledSet(("dog", "cat"), pictures)
    assert "rank 1 lists 4 pictures" in on_ranks(2, lambda its: said(its, [whole, renamed]))[0]


def test_it_is_no_other_run() -> None:
    assert "valid_set_pictures" in fingerprint._NOT_SHAPING
    assert valid_sets.is_column(valid_sets.column("pets"))
    assert not valid_sets.is_column("valid_rsum")
